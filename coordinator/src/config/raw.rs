//! The layers of the configuration before they mean anything: what was typed, exported, written.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::{Deserialize, Deserializer};

use super::ConfigError;

/// One setting: its flag and file key, its environment variable, its default as text.
pub(super) struct Setting {
    pub(super) name: &'static str,
    pub(super) env: &'static str,
    pub(super) default: Option<&'static str>,
}

const fn setting(name: &'static str, env: &'static str, default: Option<&'static str>) -> Setting {
    Setting { name, env, default }
}

pub(super) const DATA: Setting = setting("data", "PEERLOOM_COORDINATOR_DATA", None);
pub(super) const LISTEN: Setting = setting("listen", "PEERLOOM_COORDINATOR_LISTEN", Some("127.0.0.1:7700"));
pub(super) const ORIGIN: Setting = setting("origin", "PEERLOOM_COORDINATOR_ORIGIN", None);
pub(super) const TLS_CERT: Setting = setting("tls-cert", "PEERLOOM_COORDINATOR_TLS_CERT", None);
pub(super) const TLS_KEY: Setting = setting("tls-key", "PEERLOOM_COORDINATOR_TLS_KEY", None);
pub(super) const TRUSTED_PROXY: Setting =
    setting("trusted-proxy", "PEERLOOM_COORDINATOR_TRUSTED_PROXY", None);
pub(super) const STUN: Setting = setting("stun", "PEERLOOM_COORDINATOR_STUN", None);
pub(super) const STUN_SECOND: Setting = setting("stun-second", "PEERLOOM_COORDINATOR_STUN_SECOND", None);
pub(super) const CONNECTIONS_MAX: Setting =
    setting("connections-max", "PEERLOOM_COORDINATOR_CONNECTIONS_MAX", Some("10000"));
pub(super) const MESSAGES_PER_SECOND: Setting =
    setting("member-messages-per-second", "PEERLOOM_COORDINATOR_MEMBER_MESSAGES_PER_SECOND", Some("200"));
pub(super) const BYTES_PER_SECOND: Setting =
    setting("member-bytes-per-second", "PEERLOOM_COORDINATOR_MEMBER_BYTES_PER_SECOND", Some("20000000"));
pub(super) const HELLOS_PER_SECOND: Setting =
    setting("hellos-per-second", "PEERLOOM_COORDINATOR_HELLOS_PER_SECOND", Some("10"));
pub(super) const LOG: Setting = setting("log", "PEERLOOM_COORDINATOR_LOG", Some("info"));
pub(super) const LOG_FORMAT: Setting =
    setting("log-format", "PEERLOOM_COORDINATOR_LOG_FORMAT", Some("human"));

/// Every setting, in the order of `--help`.
#[cfg(test)]
pub(super) const SETTINGS: [Setting; 14] = [
    DATA,
    LISTEN,
    ORIGIN,
    TLS_CERT,
    TLS_KEY,
    TRUSTED_PROXY,
    STUN,
    STUN_SECOND,
    CONNECTIONS_MAX,
    MESSAGES_PER_SECOND,
    BYTES_PER_SECOND,
    HELLOS_PER_SECOND,
    LOG,
    LOG_FORMAT,
];

/// What was typed or written, every field optional. Lives only until [`Config::resolve`].
#[derive(Clone, Debug, Default, clap::Args, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct RawConfig {
    /// Directory for everything that is kept: database, key, token. Made with mode 0700.
    /// [default: $XDG_DATA_HOME/peerloom-coordinator, else ~/.local/share/peerloom-coordinator]
    #[arg(long, value_name = "DIR")]
    pub(super) data: Option<String>,
    /// TCP address for HTTP and WebSocket; port 0 takes a free one. [default: 127.0.0.1:7700]
    #[arg(long, value_name = "ADDR:PORT")]
    pub(super) listen: Option<String>,
    /// Where nodes find this coordinator, as it stands in every mesh log: https://host[:port].
    /// Needed unless --listen is a loopback address. [default: http(s)://<listen address>]
    #[arg(long, value_name = "URL")]
    pub(super) origin: Option<String>,
    /// PEM certificate chain; with --tls-key this server speaks TLS itself.
    #[arg(long, value_name = "FILE")]
    pub(super) tls_cert: Option<String>,
    /// PEM private key of --tls-cert.
    #[arg(long, value_name = "FILE")]
    pub(super) tls_key: Option<String>,
    /// Proxy whose X-Forwarded-For is believed, an address or a block; repeats, or commas.
    #[arg(long, value_name = "IP|CIDR")]
    #[serde(deserialize_with = "list")]
    pub(super) trusted_proxy: Vec<String>,
    /// UDP address of the STUN responder, or "off". [default: the address and port of --listen]
    #[arg(long, value_name = "ADDR:PORT|off")]
    pub(super) stun: Option<String>,
    /// UDP address of a second STUN responder, or "off". Nodes tell the kind of their NAT by asking
    /// both; another IP address than the first one's tells most. [default: the address of --stun, the
    /// next port up or else a free one]
    #[arg(long, value_name = "ADDR:PORT|off")]
    pub(super) stun_second: Option<String>,
    /// TCP connections at once; more are closed on arrival. [default: 10000]
    #[arg(long, value_name = "N")]
    #[serde(deserialize_with = "text")]
    pub(super) connections_max: Option<String>,
    /// Sustained envelopes a member may put; 0 lifts the limit. [default: 200]
    #[arg(long, value_name = "N")]
    #[serde(deserialize_with = "text")]
    pub(super) member_messages_per_second: Option<String>,
    /// Sustained bytes a member may put; 0 lifts the limit. [default: 20000000]
    #[arg(long, value_name = "N")]
    #[serde(deserialize_with = "text")]
    pub(super) member_bytes_per_second: Option<String>,
    /// Sustained new links from one address, three times as many at once; 0 lifts the limit.
    /// [default: 10]
    #[arg(long, value_name = "N")]
    #[serde(deserialize_with = "text")]
    pub(super) hellos_per_second: Option<String>,
    /// What is logged to stderr: error, warn, info, debug, trace, or a filter. [default: info]
    #[arg(long, value_name = "LEVEL")]
    pub(super) log: Option<String>,
    /// How it is logged: human or json. [default: human]
    #[arg(long, value_name = "FORMAT")]
    pub(super) log_format: Option<String>,
}

/// Numbers may stand bare in the file.
fn text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Scalar {
        Number(u64),
        Text(String),
    }
    Option::<Scalar>::deserialize(deserializer).map(|scalar| {
        scalar.map(|scalar| match scalar {
            Scalar::Number(number) => number.to_string(),
            Scalar::Text(text) => text,
        })
    })
}

/// A list, or one text.
fn list<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum OneOrMany {
        One(String),
        Many(Vec<String>),
    }
    OneOrMany::deserialize(deserializer).map(|read| match read {
        OneOrMany::One(one) => vec![one],
        OneOrMany::Many(many) => many,
    })
}

/// The environment, as an argument.
#[derive(Clone, Debug, Default)]
pub struct Env(BTreeMap<String, String>);

impl Env {
    /// The process's environment. Values that are not UTF-8 can name nothing here.
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the environment")]
    pub fn of_process() -> Self {
        std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect()
    }

    pub(super) fn get(&self, name: &str) -> Option<&String> {
        self.0.get(name).filter(|value| !value.is_empty())
    }
}

impl FromIterator<(String, String)> for Env {
    fn from_iter<I: IntoIterator<Item = (String, String)>>(pairs: I) -> Self {
        Self(pairs.into_iter().collect())
    }
}

/// The configuration file, read.
#[derive(Clone, Debug, Default)]
pub struct ConfigFile {
    pub(super) raw: RawConfig,
    pub(super) path: PathBuf,
}

impl ConfigFile {
    /// Reads a TOML file whose keys are the long flags.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let unreadable = |source| ConfigError::File { path: path.to_owned(), source };
        let text = std::fs::read_to_string(path).map_err(unreadable)?;
        Self::parse(&text, path)
    }

    /// Reads the text of one; `path` is named in errors.
    pub fn parse(text: &str, path: &Path) -> Result<Self, ConfigError> {
        let raw = toml::from_str(text)
            .map_err(|source| ConfigError::Syntax { path: path.to_owned(), source: Box::new(source) })?;
        Ok(Self { raw, path: path.to_owned() })
    }
}

/// Where a value came from, for the error that names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// The command line.
    Flag(&'static str),
    /// The environment.
    Env(&'static str),
    /// The configuration file.
    File(&'static str, PathBuf),
    /// Nobody said anything.
    Default(&'static str),
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag(name) => write!(f, "--{name}"),
            Self::Env(name) => f.write_str(name),
            Self::File(name, path) => write!(f, "{name} in {}", path.display()),
            Self::Default(name) => write!(f, "the default of --{name}"),
        }
    }
}

/// One value and where it came from.
pub(super) struct Found {
    pub(super) value: String,
    pub(super) at: Source,
}

impl Found {
    pub(super) fn parse<T: FromStr>(self, expected: &str) -> Result<T, ConfigError> {
        self.value.parse().map_err(|_| self.wrong(expected))
    }

    /// A part of a list, from the same place.
    pub(super) fn part(&self, value: &str) -> Self {
        Self { value: value.to_owned(), at: self.at.clone() }
    }

    pub(super) fn wrong(&self, expected: &str) -> ConfigError {
        ConfigError::Value { at: self.at.clone(), value: self.value.clone(), expected: expected.to_owned() }
    }
}

/// The layers, asked in order.
pub(super) struct Layers<'a> {
    pub(super) flags: &'a RawConfig,
    pub(super) env: &'a Env,
    pub(super) file: &'a ConfigFile,
}

impl Layers<'_> {
    pub(super) fn find(&self, setting: &Setting, of: impl Fn(&RawConfig) -> Option<String>) -> Option<Found> {
        let Setting { name, env, default } = *setting;
        let flag = of(self.flags).map(|value| (value, Source::Flag(name)));
        let found = flag
            .or_else(|| self.env.get(env).map(|value| (value.clone(), Source::Env(env))))
            .or_else(|| of(&self.file.raw).map(|value| (value, Source::File(name, self.file.path.clone()))))
            .or_else(|| default.map(|value| (value.to_owned(), Source::Default(name))));
        found.map(|(value, at)| Found { value, at })
    }

    /// For settings whose table row has a default.
    pub(super) fn get(&self, setting: &Setting, of: impl Fn(&RawConfig) -> Option<String>) -> Found {
        self.find(setting, of).expect("this setting has a default in the table")
    }
}
