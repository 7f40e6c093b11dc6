//! The NATs people have, by name.

use std::time::Duration;

use serde::Deserialize;

use super::{Behaviour, Ports, Scope};

/// A named chain of NATs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Preset {
    /// A public address and no filter.
    None,
    /// Endpoint-independent mapping and filtering.
    FullCone,
    /// Endpoint-independent mapping; whoever was written to may answer from any port.
    AddressRestricted,
    /// Endpoint-independent mapping; whoever was written to may answer from that port.
    PortRestricted,
    /// Another random port for every remote end.
    Symmetric,
    /// A port-restricted NAT behind which no UDP gets out.
    UdpBlocked,
    /// A port-restricted NAT at home, behind one of the carrier that gives ports in blocks and serves
    /// hairpins (RFC 6888).
    Cgnat,
}

impl Preset {
    #[cfg(test)]
    pub(crate) const ALL: [Self; 7] = [
        Self::None,
        Self::FullCone,
        Self::AddressRestricted,
        Self::PortRestricted,
        Self::Symmetric,
        Self::UdpBlocked,
        Self::Cgnat,
    ];

    /// From the host outwards.
    pub(crate) fn chain(self) -> Vec<Behaviour> {
        use Scope::{AddressAndPortDependent, AddressDependent, EndpointIndependent};
        match self {
            Self::None => Vec::new(),
            Self::FullCone => vec![cone(EndpointIndependent)],
            Self::AddressRestricted => vec![cone(AddressDependent)],
            Self::PortRestricted => vec![cone(AddressAndPortDependent)],
            Self::Symmetric => vec![Behaviour {
                mapping: AddressAndPortDependent,
                ports: Ports::Random,
                ..cone(AddressAndPortDependent)
            }],
            Self::UdpBlocked => vec![Behaviour { blocks_udp: true, ..cone(AddressAndPortDependent) }],
            Self::Cgnat => {
                let carrier =
                    Behaviour { ports: Ports::Block, hairpins: true, ..cone(AddressAndPortDependent) };
                vec![cone(AddressAndPortDependent), carrier]
            }
        }
    }
}

fn cone(filtering: Scope) -> Behaviour {
    Behaviour {
        mapping: Scope::EndpointIndependent,
        filtering,
        ports: Ports::Preserving,
        idle: IDLE,
        life: None,
        sessions_max: SESSIONS_MAX,
        hairpins: false,
        blocks_udp: false,
    }
}

/// RFC 4787 REQ-5: a mapping must not expire in less than two minutes.
const IDLE: Duration = Duration::from_secs(120);

/// What home routers with 128 MiB of memory set for conntrack.
const SESSIONS_MAX: usize = 16_384;
