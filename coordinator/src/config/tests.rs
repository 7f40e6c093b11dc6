use super::*;

fn resolve(flags: RawConfig, env: &[(&str, &str)], file: &str) -> Result<Config, ConfigError> {
    let home = ("HOME", "/home/ada");
    let env =
        env.iter().chain([&home]).map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let file = ConfigFile::parse(file, Path::new("coordinator.toml"))?;
    Config::resolve(&flags, &env, &file)
}

fn listening(listen: &str) -> RawConfig {
    RawConfig { listen: Some(listen.to_owned()), ..RawConfig::default() }
}

const LISTEN_ENV: (&str, &str) = ("PEERLOOM_COORDINATOR_LISTEN", "127.0.0.1:2");
const LISTEN_FILE: &str = "listen = \"127.0.0.1:3\"";

#[test]
fn a_flag_outranks_the_environment_which_outranks_the_file_which_outranks_the_default() {
    let port = |flags, env: &[_], file| resolve(flags, env, file).unwrap().listen.port();
    assert_eq!(port(listening("127.0.0.1:1"), &[LISTEN_ENV], LISTEN_FILE), 1);
    assert_eq!(port(RawConfig::default(), &[LISTEN_ENV], LISTEN_FILE), 2);
    assert_eq!(port(RawConfig::default(), &[], LISTEN_FILE), 3);
    assert_eq!(port(RawConfig::default(), &[], ""), 7700);
}

#[test]
fn an_empty_environment_variable_says_nothing() {
    let env = [("PEERLOOM_COORDINATOR_LISTEN", "")];
    assert_eq!(resolve(RawConfig::default(), &env, LISTEN_FILE).unwrap().listen.port(), 3);
}

#[test]
fn the_defaults_are_a_plain_local_coordinator_with_the_documented_limits() {
    let config = resolve(RawConfig::default(), &[], "").unwrap();
    assert_eq!(config.data, Path::new("/home/ada/.local/share/peerloom-coordinator"));
    assert_eq!(config.origin_at("127.0.0.1:7700".parse().unwrap()).as_str(), "http://127.0.0.1:7700");
    assert_eq!(
        (config.tls, config.stun, config.stun_second),
        (Tls::Off, Stun::BesideListener, StunSecond::NextPort)
    );
    assert_eq!((config.member_messages_per_second, config.member_bytes_per_second), (200, 20_000_000));
}

#[test]
fn every_key_of_the_file_is_read() {
    let file = r#"
        data = "/var/lib/x"
        listen = "0.0.0.0:7700"
        origin = "HTTPS://Mesh.Example/"
        tls-cert = "c.pem"
        tls-key = "k.pem"
        trusted-proxy = ["10.0.0.0/8", "::1"]
        stun = "off"
        stun-second = "off"
        connections-max = 50
        member-messages-per-second = 0
        member-bytes-per-second = "7"
        hellos-per-second = 3
        log = "debug"
        log-format = "json"
    "#;
    let config = resolve(RawConfig::default(), &[], file).unwrap();
    let expected = Config {
        data: "/var/lib/x".into(),
        listen: "0.0.0.0:7700".parse().unwrap(),
        origin: OriginChoice::Named(Origin::parse("https://mesh.example").unwrap()),
        tls: Tls::Files { certificate: "c.pem".into(), key: "k.pem".into() },
        trusted_proxies: vec!["10.0.0.0/8".parse().unwrap(), "::1".parse().unwrap()],
        stun: Stun::Off,
        stun_second: StunSecond::Off,
        connections_max: 50,
        member_messages_per_second: 0,
        member_bytes_per_second: 7,
        hellos_per_second: 3,
        log: "debug".to_owned(),
        log_format: LogFormat::Json,
    };
    assert_eq!(config, expected);
}

#[test]
fn a_wrong_value_is_refused_with_the_name_of_the_place_it_stands_in() {
    let message = |flags, env: &[_], file| resolve(flags, env, file).unwrap_err().to_string();
    assert_eq!(message(listening("here"), &[], ""), "--listen: \"here\" is not an address like 0.0.0.0:7700");
    assert_eq!(
        message(RawConfig::default(), &[("PEERLOOM_COORDINATOR_STUN", "on")], ""),
        "PEERLOOM_COORDINATOR_STUN: \"on\" is not an address like 0.0.0.0:3478, or off"
    );
    assert_eq!(
        message(RawConfig::default(), &[], "log-format = \"xml\""),
        "log-format in coordinator.toml: \"xml\" is not human or json"
    );
    assert_eq!(
        message(RawConfig::default(), &[], "trusted-proxy = \"10.0.0.0/8, lo\""),
        "trusted-proxy in coordinator.toml: \"lo\" is not an address or a block like 10.0.0.0/8"
    );
}

#[test]
fn a_second_stun_responder_needs_a_first() {
    let settings = |first: &str| format!("stun = \"{first}\"\nstun-second = \"192.0.2.2:3479\"");
    let config = resolve(RawConfig::default(), &[], &settings("192.0.2.1:3478")).unwrap();
    assert_eq!(config.stun_second, StunSecond::At("192.0.2.2:3479".parse().unwrap()));
    let refused = resolve(RawConfig::default(), &[], &settings("off")).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "stun-second in coordinator.toml: \"192.0.2.2:3479\" is not off, as --stun is"
    );
}

#[test]
fn a_key_that_does_not_exist_is_refused_rather_than_ignored() {
    let refused = resolve(RawConfig::default(), &[], "lisen = \"127.0.0.1:3\"").unwrap_err();
    assert!(matches!(refused, ConfigError::Syntax { .. }), "{refused:?}");
}

#[test]
fn an_address_that_others_can_reach_needs_an_origin() {
    let refused = resolve(listening("0.0.0.0:7700"), &[], "").unwrap_err();
    assert!(matches!(refused, ConfigError::OriginNeeded { .. }), "{refused:?}");
    assert!(resolve(listening("0.0.0.0:7700"), &[], "origin = \"http://192.0.2.1\"").is_ok());
}

#[test]
fn one_tls_file_without_the_other_is_refused_with_the_name_of_the_missing_one() {
    let refused = resolve(RawConfig::default(), &[], "tls-cert = \"c.pem\"").unwrap_err();
    assert!(refused.to_string().contains("--tls-key is missing"), "{refused}");
}

#[test]
fn without_a_home_the_data_directory_must_be_named() {
    let refused =
        Config::resolve(&RawConfig::default(), &Env::default(), &ConfigFile::default()).unwrap_err();
    assert!(matches!(refused, ConfigError::NoHome), "{refused:?}");
}

#[test]
fn help_names_every_setting_and_its_default() {
    use clap::Args as _;
    let mut command = RawConfig::augment_args(clap::Command::new("serve"));
    let help = command.render_long_help().to_string();
    for Setting { name, default, .. } in &SETTINGS {
        assert!(help.contains(&format!("--{name} ")), "no --{name} in\n{help}");
        if let Some(default) = default {
            assert!(help.contains(&format!("[default: {default}]")), "no default of --{name} in\n{help}");
        }
    }
}
