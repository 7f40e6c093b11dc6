//! A batch as every host runs it: collect, take in, drain, and only after the commit act. The host owns
//! the disk, the sockets and the clock; which inputs come first and when a batch is complete stand here.

use std::time::Duration;

use bytes::Bytes;

use super::{Endpoint, Input, OutboxRow, Output, Row, SeenRow, SentRow, Token, Write};
use crate::id::{MessageId, PeerId};
use crate::time::Now;

/// What a batch asks of the store. The answers are what is committed; the batch's own writes are not.
pub trait Lookups {
    /// Why the store cannot answer. The batch is over then: nothing of it may be committed.
    type Error;

    /// Every outbox row under each id, tombstones too, in the order asked.
    fn sent(&mut self, ids: &[MessageId]) -> Result<Vec<Vec<SentRow>>, Self::Error>;

    /// What is known of each (from, id), in the order asked.
    fn seen(&mut self, keys: &[(PeerId, MessageId)]) -> Result<Vec<Option<SeenRow>>, Self::Error>;

    /// These outbox rows whole, those that exist.
    fn load(&mut self, rows: &[Row]) -> Result<Vec<OutboxRow>, Self::Error>;

    /// Whole entries of the mesh log from this index on, at most
    /// [`LOG_RETURN_MAX`](crate::limits::LOG_RETURN_MAX).
    fn entries(&mut self, from: u64) -> Result<Vec<Bytes>, Self::Error>;
}

/// What one batch gathered.
#[derive(Debug, Default)]
pub struct Batch {
    /// To be committed, in one transaction.
    pub writes: Vec<Write>,
    /// To be carried out after that, in order; neither writes nor lookups.
    pub acts: Vec<Output>,
}

/// How much of a batch's bounds its inputs have used.
#[derive(Clone, Copy, Debug, Default)]
pub struct Fill {
    inputs: usize,
    bytes: usize,
}

/// What the machine asks in one round.
#[derive(Default)]
struct Questions {
    sent: Vec<(Token, MessageId)>,
    seen: Vec<Vec<(PeerId, MessageId)>>,
    rows: Vec<Row>,
    entries: Option<u64>,
}

/// Inputs of one batch: beyond it the commit would keep the first waiting.
const INPUTS_MAX: usize = 256;

/// Bytes of frames in one batch, for the same reason.
const BYTES_MAX: usize = 1 << 20;

/// The longest sleep of a host: its timers may stop while the machine is suspended and its clocks do
/// not, so this is how late a deadline may be noticed after that.
const WAIT_MAX: Duration = Duration::from_secs(5);

impl Fill {
    /// Counts inputs and the bytes of their frames.
    pub fn add(&mut self, inputs: usize, bytes: usize) {
        self.inputs += inputs;
        self.bytes += bytes;
    }

    /// Whether whatever else has arrived is for the next batch.
    pub fn is_full(&self) -> bool {
        self.inputs >= INPUTS_MAX || self.bytes >= BYTES_MAX
    }
}

impl Batch {
    /// Begins a batch: what is due comes before what has arrived. The host then gives the machine its
    /// inputs.
    pub fn begin(endpoint: &mut Endpoint, now: Now) -> Self {
        if endpoint.poll_timeout(now).is_some_and(|due| due <= now.monotonic) {
            endpoint.handle(now, Input::Timeout);
        }
        Self::default()
    }

    /// Takes everything the machine wants, answering its lookups until it has none.
    pub fn drain<S: Lookups>(
        &mut self,
        endpoint: &mut Endpoint,
        now: Now,
        store: &mut S,
    ) -> Result<(), S::Error> {
        loop {
            endpoint.finish_batch(now);
            let asked = self.take_outputs(endpoint);
            if asked.is_empty() {
                return Ok(());
            }
            for input in self.answers(asked, store)? {
                endpoint.handle(now, input);
            }
        }
    }

    fn take_outputs(&mut self, endpoint: &mut Endpoint) -> Questions {
        let mut asked = Questions::default();
        while let Some(output) = endpoint.poll_output() {
            match output {
                Output::Write(write) => self.writes.push(write),
                Output::LookupSent { token, id } => asked.sent.push((token, id)),
                Output::LookupSeen(keys) => asked.seen.push(keys),
                Output::Load(rows) => asked.rows.extend(rows),
                Output::LoadEntries(from) => asked.entries = Some(from),
                act @ (Output::ConnectUplink
                | Output::CloseUplink(_)
                | Output::SendUplink(_)
                | Output::SendLink(..)
                | Output::CloseLink(_)
                | Output::Expect { .. }
                | Output::Dial { .. }
                | Output::WebRtc(_)
                | Output::SendDatagram { .. }
                | Output::OpenSockets { .. }
                | Output::CloseSockets(_)
                | Output::Forget(_)
                | Output::Reply(..)
                | Output::Event(_)) => self.acts.push(act),
            }
        }
        asked
    }

    fn answers<S: Lookups>(&self, asked: Questions, store: &mut S) -> Result<Vec<Input>, S::Error> {
        let mut inputs = Vec::new();
        if !asked.sent.is_empty() {
            let ids: Vec<MessageId> = asked.sent.iter().map(|(_, id)| *id).collect();
            let answers = asked.sent.iter().zip(store.sent(&ids)?);
            inputs.extend(answers.map(|((token, _), rows)| Input::Sent { token: *token, rows }));
        }
        for keys in &asked.seen {
            inputs.push(Input::Seen { rows: store.seen(keys)? });
        }
        if !asked.rows.is_empty() {
            inputs.push(Input::Loaded(self.load(&asked.rows, store)?));
        }
        if let Some(from) = asked.entries {
            inputs.push(Input::Entries { from, entries: store.entries(from)? });
        }
        Ok(inputs)
    }

    /// Rows that this batch is about to write come from it, the others from the store.
    fn load<S: Lookups>(&self, rows: &[Row], store: &mut S) -> Result<Vec<OutboxRow>, S::Error> {
        let (mut found, mut stored) = (Vec::new(), Vec::new());
        for wanted in rows {
            match self.writes.iter().find_map(|write| outbox_row(write, *wanted)) {
                Some(row) => found.push(row.clone()),
                None => stored.push(*wanted),
            }
        }
        if !stored.is_empty() {
            found.extend(store.load(&stored)?);
        }
        Ok(found)
    }
}

impl Endpoint {
    /// How long a host without inputs may sleep.
    pub fn idle(&self, now: Now) -> Duration {
        let due = self.poll_timeout(now);
        due.map_or(WAIT_MAX, |due| due.since(now.monotonic).min(WAIT_MAX))
    }
}

impl Questions {
    fn is_empty(&self) -> bool {
        self.sent.is_empty() && self.seen.is_empty() && self.rows.is_empty() && self.entries.is_none()
    }
}

fn outbox_row(write: &Write, wanted: Row) -> Option<&OutboxRow> {
    if let Write::Outbox(row) = write { (row.row == wanted).then_some(row) } else { None }
}
