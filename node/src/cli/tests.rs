use clap::CommandFactory;

use super::*;

fn parse(line: &str) -> Cli {
    Cli::try_parse_from(line.split(' ')).unwrap()
}

fn refused(line: &str) -> String {
    Cli::try_parse_from(line.split(' ')).unwrap_err().to_string()
}

#[test]
fn the_definition_is_sound() {
    Cli::command().debug_assert();
}

#[test]
fn every_verb_has_help_with_an_example() {
    fn check(command: &clap::Command, path: &str) {
        for verb in command.get_subcommands() {
            let name = format!("{path} {}", verb.get_name());
            assert!(verb.get_about().is_some(), "{name} has no description");
            if verb.get_subcommands().next().is_none() || verb.get_name() != "member" {
                let after = verb.get_after_help().map(ToString::to_string).unwrap_or_default();
                assert!(after.contains("peerloom "), "{name} shows no example");
            }
            check(verb, &name);
        }
    }
    check(&Cli::command(), "peerloom");
}

#[test]
fn every_verb_of_the_first_issue_exists() {
    let command = Cli::command();
    let verbs: Vec<&str> = command.get_subcommands().map(clap::Command::get_name).collect();
    assert_eq!(
        verbs,
        [
            "init",
            "invite",
            "join",
            "leave",
            "up",
            "down",
            "logs",
            "status",
            "peers",
            "ping",
            "netcheck",
            "why",
            "trace",
            "send",
            "inbox",
            "message",
            "outbox",
            "member",
            "revoke",
            "doctor",
            "completions",
            "demo"
        ]
    );
}

#[test]
fn json_and_mesh_may_follow_the_verb() {
    let cli = parse("peerloom status --json --mesh acme");
    assert!(cli.global.json);
    assert_eq!(cli.global.mesh.as_deref(), Some("acme"));
}

#[test]
fn invite_alone_makes_one_and_takes_its_flags() {
    let Verb::Invite(args) = parse("peerloom invite --uses 5 --expires 2h").verb else {
        panic!("not invite")
    };
    assert!(args.action.is_none());
    assert_eq!(args.create.uses, Some(5));
    assert_eq!(args.create.expires, Some(Duration::from_secs(7200)));
}

#[test]
fn a_text_of_one_dash_means_standard_input() {
    let Verb::Send(args) = parse("peerloom send build -").verb else { panic!("not send") };
    assert_eq!(args.peer_and_text, ["build", "-"]);
}

#[test]
fn a_text_that_begins_with_a_dash_needs_two_dashes_before_it() {
    let Verb::Send(args) = parse("peerloom send build -- -x").verb else { panic!("not send") };
    assert_eq!(args.peer_and_text, ["build", "-x"]);
}

#[test]
fn a_batch_takes_no_recipient_on_the_command_line() {
    assert!(refused("peerloom send --batch --to build").contains("cannot be used with"));
}

#[test]
fn up_wants_new_before_a_coordinator() {
    assert!(refused("peerloom up --coordinator http://127.0.0.1:1").contains("--new"));
}

#[test]
fn requeue_needs_an_id_or_all() {
    assert!(refused("peerloom outbox requeue").contains("--all"));
}

#[test]
fn spans_are_read_with_their_units() {
    assert_eq!(parse_span("500ms"), Ok(Duration::from_millis(500)));
    assert_eq!(parse_span("10"), Ok(Duration::from_secs(10)));
    assert_eq!(parse_span("7d"), Ok(Duration::from_secs(604_800)));
    assert!(parse_span("2w").is_err());
    assert!(parse_span("s").is_err());
    assert!(parse_span("99999999999999999999d").is_err());
}
