//! What was typed becomes what is meant, once. Order: flag, environment, file, default.
//!
//! `config/raw.rs` has the one table of names, environment variables and defaults; a test holds
//! `--help` against it.

mod raw;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use peerloom_proto::Origin;

use crate::proxy::AddressBlock;
use raw::{
    BYTES_PER_SECOND, CONNECTIONS_MAX, DATA, HELLOS_PER_SECOND, LISTEN, LOG, LOG_FORMAT, Layers,
    MESSAGES_PER_SECOND, ORIGIN, STUN, STUN_SECOND, TLS_CERT, TLS_KEY, TRUSTED_PROXY,
};
pub use raw::{ConfigFile, Env, RawConfig, Source};
#[cfg(test)]
use raw::{SETTINGS, Setting};

/// Why the configuration means nothing. All of these are usage errors.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file is not there or not readable.
    #[error("failed to read the configuration file {path}")]
    File {
        /// Which.
        path: PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// The file is no TOML, or names a setting that does not exist.
    #[error("{path} is not a valid configuration file")]
    Syntax {
        /// Which.
        path: PathBuf,
        /// The cause, with line and column.
        #[source]
        source: Box<toml::de::Error>,
    },
    /// A value cannot be read.
    #[error("{at}: {value:?} is not {expected}")]
    Value {
        /// Where it was given.
        at: Source,
        /// What was given.
        value: String,
        /// What could be.
        expected: String,
    },
    /// Nobody could reach this coordinator by its listen address.
    #[error(
        "--listen {listen} is not a loopback address, so --origin must name where nodes find this coordinator, like --origin https://mesh.example"
    )]
    OriginNeeded {
        /// Where it would listen.
        listen: SocketAddr,
    },
    /// One half of the TLS files.
    #[error("--tls-cert and --tls-key come together; {missing} is missing")]
    HalfTls {
        /// The other.
        missing: &'static str,
    },
    /// No place for the data.
    #[error("--data is needed: neither XDG_DATA_HOME nor HOME is set")]
    NoHome,
}

/// What is meant. No `Option` that a caller must default, no string left to parse.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Holds everything that is kept.
    pub data: PathBuf,
    /// TCP; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Where nodes find it.
    pub origin: OriginChoice,
    /// Whether it speaks TLS itself.
    pub tls: Tls,
    /// Proxies that are believed.
    pub trusted_proxies: Vec<AddressBlock>,
    /// The UDP responder.
    pub stun: Stun,
    /// Its companion, by which a node sees whether its NAT maps per destination.
    pub stun_second: StunSecond,
    /// TCP connections at once.
    pub connections_max: usize,
    /// Sustained envelopes a second and member; 0 is unlimited.
    pub member_messages_per_second: u64,
    /// Sustained bytes a second and member; 0 is unlimited.
    pub member_bytes_per_second: u64,
    /// Sustained new links a second and address; 0 is unlimited.
    pub hellos_per_second: u32,
    /// A `tracing` filter.
    pub log: String,
    /// How log lines look.
    pub log_format: LogFormat,
}

/// See [`Config::origin`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OriginChoice {
    /// As configured.
    Named(Origin),
    /// The listening address, once the port is known.
    Listener,
}

/// See [`Config::tls`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tls {
    /// Plain HTTP: loopback, or behind a proxy.
    Off,
    /// PEM files.
    Files {
        /// Chain.
        certificate: PathBuf,
        /// Private key.
        key: PathBuf,
    },
}

/// See [`Config::stun`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stun {
    /// No responder.
    Off,
    /// The TCP listener's address and port.
    BesideListener,
    /// Its own.
    At(SocketAddr),
}

/// See [`Config::stun_second`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StunSecond {
    /// None, because it was switched off or because there is no first one.
    Off,
    /// The first one's address; the next port up, or any free one where that is taken.
    NextPort,
    /// Its own.
    At(SocketAddr),
}

/// See [`Config::log_format`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// Lines for people.
    Human,
    /// One JSON object a line.
    Json,
}

impl Config {
    /// Order: flag, environment, file, default. The only reader of the environment.
    pub fn resolve(flags: &RawConfig, env: &Env, file: &ConfigFile) -> Result<Self, ConfigError> {
        let layers = Layers { flags, env, file };
        let number = "a number";
        let listen: SocketAddr =
            layers.get(&LISTEN, |raw| raw.listen.clone()).parse("an address like 0.0.0.0:7700")?;
        let log_format = layers.get(&LOG_FORMAT, |raw| raw.log_format.clone());
        let stun = stun(&layers)?;
        Ok(Self {
            data: data(&layers)?,
            listen,
            origin: origin(&layers, listen)?,
            tls: tls(&layers)?,
            trusted_proxies: trusted_proxies(&layers)?,
            stun,
            stun_second: stun_second(&layers, stun)?,
            connections_max: layers.get(&CONNECTIONS_MAX, |raw| raw.connections_max.clone()).parse(number)?,
            member_messages_per_second: layers
                .get(&MESSAGES_PER_SECOND, |raw| raw.member_messages_per_second.clone())
                .parse(number)?,
            member_bytes_per_second: layers
                .get(&BYTES_PER_SECOND, |raw| raw.member_bytes_per_second.clone())
                .parse(number)?,
            hellos_per_second: layers
                .get(&HELLOS_PER_SECOND, |raw| raw.hellos_per_second.clone())
                .parse(number)?,
            log: layers.get(&LOG, |raw| raw.log.clone()).value,
            log_format: match log_format.value.as_str() {
                "human" => LogFormat::Human,
                "json" => LogFormat::Json,
                _ => return Err(log_format.wrong("human or json")),
            },
        })
    }

    /// The origin nodes will use, once the listener's port is known.
    pub fn origin_at(&self, bound: SocketAddr) -> Origin {
        let scheme = match self.tls {
            Tls::Off => "http",
            Tls::Files { .. } => "https",
        };
        match &self.origin {
            OriginChoice::Named(origin) => origin.clone(),
            OriginChoice::Listener => {
                Origin::from_typed(&format!("{scheme}://{bound}")).expect("a socket address makes an origin")
            }
        }
    }
}

fn data(layers: &Layers<'_>) -> Result<PathBuf, ConfigError> {
    if let Some(found) = layers.find(&DATA, |raw| raw.data.clone()) {
        return Ok(found.value.into());
    }
    let shared = layers.env.get("XDG_DATA_HOME").map(PathBuf::from);
    let shared = shared.or_else(|| layers.env.get("HOME").map(|home| Path::new(home).join(".local/share")));
    Ok(shared.ok_or(ConfigError::NoHome)?.join("peerloom-coordinator"))
}

fn origin(layers: &Layers<'_>, listen: SocketAddr) -> Result<OriginChoice, ConfigError> {
    match layers.find(&ORIGIN, |raw| raw.origin.clone()) {
        Some(found) => match Origin::from_typed(&found.value) {
            Ok(origin) => Ok(OriginChoice::Named(origin)),
            Err(error) => Err(found.wrong(&format!("an origin ({error})"))),
        },
        None if listen.ip().is_loopback() => Ok(OriginChoice::Listener),
        None => Err(ConfigError::OriginNeeded { listen }),
    }
}

fn tls(layers: &Layers<'_>) -> Result<Tls, ConfigError> {
    let certificate = layers.find(&TLS_CERT, |raw| raw.tls_cert.clone());
    let key = layers.find(&TLS_KEY, |raw| raw.tls_key.clone());
    match (certificate, key) {
        (None, None) => Ok(Tls::Off),
        (Some(certificate), Some(key)) => {
            Ok(Tls::Files { certificate: certificate.value.into(), key: key.value.into() })
        }
        (Some(_), None) => Err(ConfigError::HalfTls { missing: "--tls-key" }),
        (None, Some(_)) => Err(ConfigError::HalfTls { missing: "--tls-cert" }),
    }
}

fn trusted_proxies(layers: &Layers<'_>) -> Result<Vec<AddressBlock>, ConfigError> {
    let joined = |raw: &RawConfig| (!raw.trusted_proxy.is_empty()).then(|| raw.trusted_proxy.join(","));
    let Some(found) = layers.find(&TRUSTED_PROXY, joined) else { return Ok(Vec::new()) };
    let blocks = found.value.split(',').map(str::trim).filter(|block| !block.is_empty());
    blocks.map(|block| found.part(block).parse("an address or a block like 10.0.0.0/8")).collect()
}

fn stun(layers: &Layers<'_>) -> Result<Stun, ConfigError> {
    match layers.find(&STUN, |raw| raw.stun.clone()) {
        None => Ok(Stun::BesideListener),
        Some(found) if found.value == "off" => Ok(Stun::Off),
        Some(found) => found.parse("an address like 0.0.0.0:3478, or off").map(Stun::At),
    }
}

fn stun_second(layers: &Layers<'_>, first: Stun) -> Result<StunSecond, ConfigError> {
    let found = layers.find(&STUN_SECOND, |raw| raw.stun_second.clone());
    let there_is_a_first = match first {
        Stun::Off => false,
        Stun::BesideListener | Stun::At(_) => true,
    };
    match found {
        None if there_is_a_first => Ok(StunSecond::NextPort),
        None => Ok(StunSecond::Off),
        Some(found) if found.value == "off" => Ok(StunSecond::Off),
        Some(found) if !there_is_a_first => Err(found.wrong("off, as --stun is")),
        Some(found) => found.parse("an address like 0.0.0.0:3479, or off").map(StunSecond::At),
    }
}

#[cfg(test)]
mod tests;
