//! Planted faults of the hosts, to prove that the checkers can fail. None can be planted without the
//! feature `mutants`.

/// A way for a host to be wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "mutants", derive(clap::ValueEnum))]
pub(crate) enum Mutant {
    /// Nodes and coordinator act on most of their commits before these are synced.
    SkipsSync,
    /// Recovery applies what it finds of a torn record, whatever the checksum says.
    TrustsTornRecord,
    /// A node transmits and publishes before its commit.
    ActsEarly,
    /// A node's store forgets what it has seen, and its unique indexes.
    ForgetsDedupe,
    /// Readers see mail in order of arrival, held or not.
    IgnoresOrder,
    /// A node's store loses the last log entry at start.
    LosesLogEntry,
    /// A node's machine is never shown a revocation that its disk has.
    SkipsRevocations,
    /// A node's store knows what it has seen by its id alone.
    DedupesByBareId,
    /// A node's store forgets its floor.
    ForgetsFloor,
    /// A node believes a receipt whoever signed it.
    BelievesAnyReceipt,
    /// Nobody is told when a node sees another log than its own.
    IgnoresForks,
    /// The coordinator knows no bound for its queues.
    ForgetsBound,
    /// A coordinator whose store another took over goes on.
    ForgetsFence,
    /// Every run of the coordinator goes under one id.
    ForgetsRun,
    /// A node's store forgets how far the coordinator's had got.
    ForgetsMark,
    /// A node often leaves what its machine wants done to the next batch.
    LeavesOutputs,
    /// The coordinator's store deletes no mail.
    KeepsMail,
    /// What a message says chooses its priority.
    ContentPicksPriority,
    /// Beside an envelope goes a ping with the first bytes of what it says.
    ContentInPing,
    /// What a message says decides when it leaves.
    ContentDelays,
}

#[cfg(feature = "mutants")]
impl Mutant {
    /// Its word on the command line.
    pub(crate) fn word(self) -> String {
        let value = clap::ValueEnum::to_possible_value(&self).expect("no mutant is skipped");
        value.get_name().to_owned()
    }
}
