//! Configuration: one table, read once. A flag wins over the environment, that over `config.toml`
//! in the home, that over the default. Nothing else in the node reads the environment.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::str::FromStr;
use std::{fs, io};

use peerloom_proto::Handle;
use peerloom_proto::paths::{NoPathPolicy, PathPolicies, PathPolicy};

use crate::home::{Home, HomeError};

/// What was typed or written, every field optional. Lives only until [`Config::resolve`].
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawConfig {
    /// See [`Config::log`].
    pub log: Option<String>,
    /// See [`Config::direct`].
    pub direct: Option<bool>,
    /// See [`Config::transports`].
    pub transports: Option<Transports>,
    /// See [`Config::allow_loopback`].
    pub allow_loopback: Option<bool>,
    /// The part of [`Config::paths`] for everyone.
    pub path: Option<String>,
    /// The part of [`Config::paths`] for single members, by handle.
    #[serde(default)]
    pub paths: BTreeMap<String, String>,
    /// See [`Config::udp_port`].
    pub udp_port: Option<u16>,
    /// See [`Config::ca_file`].
    pub ca_file: Option<PathBuf>,
}

/// What is meant: nothing in it needs a default or a parse.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Which events are logged, in the filter language of `tracing-subscriber`.
    pub log: String,
    /// Whether this node offers and takes direct links.
    pub direct: bool,
    /// What direct links are made with.
    pub transports: Transports,
    /// Whether loopback addresses are offered for direct links although the coordinator is not on
    /// one. With a coordinator on a loopback address they always are.
    pub allow_loopback: bool,
    /// Which ways messages may take, in every mesh: `path` for everyone, and the table `[paths]` of the
    /// file for single members.
    pub paths: PathPolicies,
    /// UDP port of direct links of the first mesh; each further mesh takes the next one up. 0 lets
    /// the system choose.
    pub udp_port: u16,
    /// Root certificates in PEM form to trust beside the machine's own, for a coordinator with a
    /// private authority.
    pub ca_file: Option<PathBuf>,
}

/// What direct links are made with, at least one. Written as words with commas between: `quic,webrtc`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(try_from = "String")]
pub struct Transports {
    /// QUIC.
    pub quic: bool,
    /// WebRTC data channels.
    pub webrtc: bool,
}

impl FromStr for Transports {
    type Err = TransportsError;

    fn from_str(text: &str) -> Result<Self, TransportsError> {
        let mut transports = Self { quic: false, webrtc: false };
        for word in text.split(',').map(str::trim) {
            match word {
                "quic" => transports.quic = true,
                "webrtc" => transports.webrtc = true,
                _ => return Err(TransportsError(word.to_owned())),
            }
        }
        Ok(transports)
    }
}

impl TryFrom<String> for Transports {
    type Error = TransportsError;

    fn try_from(text: String) -> Result<Self, TransportsError> {
        text.parse()
    }
}

/// No transport has this name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no transport; there are quic and webrtc")]
pub struct TransportsError(String);

/// A row of the configuration table.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    /// Its name in `config.toml`, and with dashes as a flag of `peerloom up`.
    pub name: &'static str,
    /// Its environment variable.
    pub variable: &'static str,
    /// What holds when it is nowhere set.
    pub default: &'static str,
    /// What it does.
    pub says: &'static str,
}

/// Every setting there is.
pub const SETTINGS: [Setting; 7] = [
    Setting {
        name: "log",
        variable: "PEERLOOM_LOG",
        default: "info",
        says: "which events are logged: error, warn, info, debug, trace, or a filter like info,peerloom_node=debug",
    },
    Setting {
        name: "direct",
        variable: "PEERLOOM_DIRECT",
        default: "true",
        says: "whether this node offers and takes direct links",
    },
    Setting {
        name: "transports",
        variable: "PEERLOOM_TRANSPORTS",
        default: "quic,webrtc",
        says: "what direct links are made with: quic, webrtc, or both with a comma between",
    },
    Setting {
        name: "allow_loopback",
        variable: "PEERLOOM_ALLOW_LOOPBACK",
        default: "false",
        says: "whether loopback addresses are offered although the coordinator is elsewhere",
    },
    Setting {
        name: "path",
        variable: "PEERLOOM_PATH",
        default: "prefer-direct",
        says: "which way messages take: prefer-direct, direct-only or relay-only; for one peer: build = \"relay-only\" under [paths] in config.toml",
    },
    Setting {
        name: "udp_port",
        variable: "PEERLOOM_UDP_PORT",
        default: "0",
        says: "UDP port of direct links; each further mesh takes the next one up, 0 lets the system choose",
    },
    Setting {
        name: "ca_file",
        variable: "PEERLOOM_CA_FILE",
        default: "",
        says: "PEM file of root certificates to trust beside the machine's own; empty for none",
    },
];

/// Why the configuration means nothing.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The home cannot be found.
    #[error(transparent)]
    Home(#[from] HomeError),
    /// The file cannot be read.
    #[error("failed to read {}", path.display())]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is not what it should be.
    #[error("{} is not a configuration: {source}", path.display())]
    File {
        /// Which file.
        path: PathBuf,
        /// Where and why.
        source: Box<toml::de::Error>,
    },
    /// What stands for a path, or for whose it is, means nothing.
    #[error("{setting} = {value:?}: {why}")]
    Path {
        /// `path`, or `paths.HANDLE`.
        setting: String,
        /// What it says.
        value: String,
        /// What it should be.
        why: String,
    },
    /// A value is out of its range.
    #[error("{variable} is {value:?}; {says}")]
    Value {
        /// The environment variable.
        variable: &'static str,
        /// What it holds.
        value: String,
        /// What it should say.
        says: &'static str,
    },
}

/// The environment as it was when the process began.
#[derive(Clone, Debug, Default)]
pub struct Env {
    variables: BTreeMap<String, String>,
}

impl Env {
    /// This process's environment. Values that are not Unicode are left out.
    #[expect(clippy::disallowed_methods, reason = "the one place where the environment is read")]
    pub fn capture() -> Self {
        let pairs = std::env::vars_os();
        let text =
            pairs.filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
        Self { variables: text.collect() }
    }

    /// An environment that says only this.
    pub fn of<const N: usize>(pairs: [(&str, &str); N]) -> Self {
        let owned = pairs.map(|(name, value)| (name.to_owned(), value.to_owned()));
        Self { variables: owned.into() }
    }

    /// A variable that is set and not empty.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.variables.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// Where the home is: the flag, `PEERLOOM_HOME`, `$XDG_DATA_HOME/peerloom`, or
    /// `~/.local/share/peerloom`.
    pub fn home(&self, flag: Option<PathBuf>) -> Result<Home, HomeError> {
        let named = || self.get("PEERLOOM_HOME").map(PathBuf::from);
        let data = || self.get("XDG_DATA_HOME").map(|dir| PathBuf::from(dir).join("peerloom"));
        let user = || self.get("HOME").map(|dir| PathBuf::from(dir).join(".local/share/peerloom"));
        let path = flag.or_else(named).or_else(data).or_else(user).ok_or(HomeError::Nowhere)?;
        // A detached daemon changes its directory: what it was given must still mean the same place.
        let path = std::path::absolute(&path).unwrap_or(path);
        Ok(Home::at(path))
    }
}

impl Config {
    /// Order: flag, environment, the home's `config.toml`, default.
    pub fn resolve(flags: RawConfig, env: &Env, home: &Home) -> Result<Self, ConfigError> {
        let file = RawConfig::read(home)?;
        let [log, direct, transports, allow_loopback, path, udp_port, ca_file] = &SETTINGS;
        let everyone: String = pick(flags.path, env, file.path, path)?;
        let ca_file: PathBuf = pick(flags.ca_file, env, file.ca_file, ca_file)?;
        Ok(Self {
            log: pick(flags.log, env, file.log, log)?,
            direct: pick(flags.direct, env, file.direct, direct)?,
            transports: pick(flags.transports, env, file.transports, transports)?,
            allow_loopback: pick(flags.allow_loopback, env, file.allow_loopback, allow_loopback)?,
            paths: PathPolicies { everyone: policy("path", everyone)?, named: named(file.paths)? },
            udp_port: pick(flags.udp_port, env, file.udp_port, udp_port)?,
            ca_file: Some(ca_file).filter(|path| !path.as_os_str().is_empty()),
        })
    }
}

impl RawConfig {
    fn read(home: &Home) -> Result<Self, ConfigError> {
        let path = home.config_file();
        match fs::read_to_string(&path) {
            Ok(text) => {
                toml::from_str(&text).map_err(|source| ConfigError::File { path, source: Box::new(source) })
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            Err(source) => Err(ConfigError::Unreadable { path, source }),
        }
    }
}

fn named(lines: BTreeMap<String, String>) -> Result<BTreeMap<Handle, PathPolicy>, ConfigError> {
    let read = |(handle, value): (String, String)| {
        let setting = format!("paths.{handle}");
        match Handle::parse(&handle) {
            Ok(handle) => Ok((handle, policy(&setting, value)?)),
            Err(error) => Err(ConfigError::Path { setting, value, why: error.to_string() }),
        }
    };
    lines.into_iter().map(read).collect()
}

fn policy(setting: &str, value: String) -> Result<PathPolicy, ConfigError> {
    let wrong = |error: NoPathPolicy, value| ConfigError::Path {
        setting: setting.to_owned(),
        value,
        why: error.to_string(),
    };
    value.parse().map_err(|error| wrong(error, value))
}

fn pick<T: FromStr>(
    flag: Option<T>,
    env: &Env,
    file: Option<T>,
    setting: &'static Setting,
) -> Result<T, ConfigError> {
    if let Some(value) = flag {
        return Ok(value);
    }
    let Setting { variable, default, says, .. } = *setting;
    if let Some(text) = env.get(variable) {
        return text.parse().map_err(|_| ConfigError::Value { variable, value: text.to_owned(), says });
    }
    match file {
        Some(value) => Ok(value),
        None => default.parse().map_err(|_| ConfigError::Value { variable, value: default.to_owned(), says }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn home_with(text: &str) -> (tempfile::TempDir, Home) {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::at(dir.path());
        fs::write(home.config_file(), text).unwrap();
        (dir, home)
    }

    #[test]
    fn a_flag_wins_over_the_environment_that_over_the_file_that_over_the_default() {
        let (_dir, home) = home_with("log = 'file'\ndirect = false\nudp_port = 7\n");
        let env = Env::of([("PEERLOOM_LOG", "env"), ("PEERLOOM_UDP_PORT", "8")]);
        let flags = RawConfig { log: Some("flag".to_owned()), ..RawConfig::default() };

        let config = Config::resolve(flags, &env, &home).unwrap();

        let expected = Config {
            log: "flag".to_owned(),
            direct: false,
            transports: Transports { quic: true, webrtc: true },
            allow_loopback: false,
            paths: PathPolicies::default(),
            udp_port: 8,
            ca_file: None,
        };
        assert_eq!(config, expected);
    }

    #[test]
    fn a_misspelt_key_in_the_file_is_refused_and_named() {
        let (_dir, home) = home_with("drect = true\n");
        let error = Config::resolve(RawConfig::default(), &Env::default(), &home).unwrap_err();
        assert!(error.to_string().contains("drect"), "{error}");
    }

    #[test]
    fn a_path_is_set_for_everyone_and_for_single_peers_and_nonsense_is_named() {
        let (_dir, home) = home_with("path = 'relay-only'\n[paths]\nbuild = 'direct-only'\n");
        let paths = Config::resolve(RawConfig::default(), &Env::default(), &home).unwrap().paths;
        let build = Handle::parse("build").unwrap();
        assert_eq!((paths.everyone, paths.named[&build]), (PathPolicy::RelayOnly, PathPolicy::DirectOnly));

        for (text, complaint) in [
            (
                "build = 'direct'",
                "paths.build = \"direct\": a path is prefer-direct, direct-only or relay-only",
            ),
            ("'Build' = 'relay-only'", "found 'B'"),
        ] {
            let (_dir, home) = home_with(&format!("[paths]\n{text}\n"));
            let error = Config::resolve(RawConfig::default(), &Env::default(), &home).unwrap_err();
            assert!(error.to_string().contains(complaint), "{error}");
        }
    }

    #[test]
    fn a_value_out_of_range_names_its_variable() {
        let (_dir, home) = home_with("");
        let env = Env::of([("PEERLOOM_DIRECT", "maybe")]);
        let error = Config::resolve(RawConfig::default(), &env, &home).unwrap_err();
        assert!(error.to_string().starts_with("PEERLOOM_DIRECT is \"maybe\""), "{error}");
    }

    #[test]
    fn transports_are_named_by_words_and_a_word_that_is_none_is_refused_by_name() {
        let (_dir, home) = home_with("transports = 'webrtc'\n");
        let config = Config::resolve(RawConfig::default(), &Env::default(), &home).unwrap();
        assert_eq!(config.transports, Transports { quic: false, webrtc: true });
        assert_eq!("webrtc, quic".parse(), Ok(Transports { quic: true, webrtc: true }));
        for wrong in ["", "quic,", "quick", "none"] {
            let (_dir, home) = home_with(&format!("transports = '{wrong}'\n"));
            let error = Config::resolve(RawConfig::default(), &Env::default(), &home).unwrap_err();
            assert!(error.to_string().contains("is no transport; there are quic and webrtc"), "{error}");
        }
    }

    #[test]
    fn every_default_in_the_table_parses() {
        let (_dir, home) = home_with("");
        let config = Config::resolve(RawConfig::default(), &Env::default(), &home).unwrap();
        assert!(config.direct);
        assert_eq!(config.udp_port, 0);
    }

    #[test]
    fn the_home_is_found_in_the_documented_order() {
        let env = Env::of([("PEERLOOM_HOME", "/a"), ("XDG_DATA_HOME", "/b"), ("HOME", "/c")]);
        assert_eq!(env.home(Some("/flag".into())).unwrap(), Home::at("/flag"));
        assert_eq!(env.home(None).unwrap(), Home::at("/a"));
        let env = Env::of([("PEERLOOM_HOME", ""), ("XDG_DATA_HOME", "/b"), ("HOME", "/c")]);
        assert_eq!(env.home(None).unwrap(), Home::at("/b/peerloom"));
        let env = Env::of([("HOME", "/c")]);
        assert_eq!(env.home(None).unwrap(), Home::at("/c/.local/share/peerloom"));
        assert!(matches!(Env::default().home(None), Err(HomeError::Nowhere)));
    }
}
