//! What a session or service may do. Explicit: nothing is granted that is not written, and `*` must
//! be written too.

use crate::canonical::{DecodeError, Value};

/// One right.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Capability {
    /// Send direct messages.
    DmSend,
    /// Call methods.
    RpcCall,
    /// Open streams.
    StreamOpen,
    /// Write to groups.
    GroupPost,
    /// Publish to topics.
    TopicPost,
    /// Hold topic keys.
    TopicRead,
    /// Write shared state.
    StateWrite,
    /// Reach into an agent's turn.
    Interrupt,
}

impl Capability {
    /// All of them, in the order they are written.
    pub const ALL: [Self; 8] = [
        Self::DmSend,
        Self::RpcCall,
        Self::StreamOpen,
        Self::GroupPost,
        Self::TopicPost,
        Self::TopicRead,
        Self::StateWrite,
        Self::Interrupt,
    ];

    /// The name on the wire.
    pub const fn name(self) -> &'static str {
        match self {
            Self::DmSend => "dm.send",
            Self::RpcCall => "rpc.call",
            Self::StreamOpen => "stream.open",
            Self::GroupPost => "group.post",
            Self::TopicPost => "topic.post",
            Self::TopicRead => "topic.read",
            Self::StateWrite => "state.write",
            Self::Interrupt => "interrupt",
        }
    }
}

/// A set of rights.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Capabilities {
    everything: bool,
    bits: u8,
}

impl Capabilities {
    /// The written `*`.
    pub const EVERYTHING: Self = Self { everything: true, bits: 0 };

    /// Whether the right is in the set.
    pub const fn allows(self, capability: Capability) -> bool {
        self.everything || self.bits & (1 << capability as u8) != 0
    }

    /// Reads a list of names. A name unknown here grants nothing here.
    pub fn from_value(value: Value<'_>) -> Result<Self, DecodeError> {
        let mut set = Self::default();
        for item in value.items()? {
            let name = item.text()?;
            set.everything |= name == EVERYTHING;
            set.extend(Capability::ALL.into_iter().filter(|capability| capability.name() == name));
        }
        Ok(set)
    }

    /// The list of names.
    pub fn to_value(self) -> Value<'static> {
        let named = Capability::ALL.into_iter().filter(|c| self.bits & (1 << *c as u8) != 0);
        let star = self.everything.then_some(Value::Text(EVERYTHING));
        Value::Array(star.into_iter().chain(named.map(|c| Value::Text(c.name()))).collect())
    }
}

impl Extend<Capability> for Capabilities {
    fn extend<I: IntoIterator<Item = Capability>>(&mut self, capabilities: I) {
        for capability in capabilities {
            self.bits |= 1 << capability as u8;
        }
    }
}

impl FromIterator<Capability> for Capabilities {
    fn from_iter<I: IntoIterator<Item = Capability>>(capabilities: I) -> Self {
        let mut set = Self::default();
        set.extend(capabilities);
        set
    }
}

const EVERYTHING: &str = "*";
