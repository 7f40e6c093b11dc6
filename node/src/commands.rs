//! What each verb does: it asks the daemon through the local API and shows the answer. `init`,
//! `join` and `up` also work in process, under the home's lock, because no daemon is up yet.

mod batch;
mod doctor;
mod down;
mod inbox;
mod invite;
mod logs;
mod membership;
mod network;
mod outbox;
mod peers;
mod ping;
mod send;
mod status;
mod up;

use std::process::ExitCode;

use clap::{CommandFactory, Parser};

use crate::api::client::Client;
use crate::cli::{Cli, Global, MemberAction, Verb};
use crate::config::{Config, Env, RawConfig};
use crate::demo;
use crate::failure::Failure;
use crate::home::Home;
use crate::render::Out;

/// The whole program: reads the command line, runs the verb, gives its exit code.
pub fn main() -> ExitCode {
    let arguments: Vec<std::ffi::OsString> = std::env::args_os().collect();
    let wants_json = arguments.iter().any(|argument| argument == "--json");
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) => return not_parsed(&error, Out::new(wants_json)),
    };
    let out = Out::new(cli.global.json);
    match run(cli, out) {
        Ok(code) => ExitCode::from(code),
        Err(failure) => {
            out.failure(&failure);
            ExitCode::from(failure.kind.exit_code())
        }
    }
}

/// A verb's end: its exit code after it said everything itself, or a failure still to be told.
pub(crate) type Ended = Result<u8, Failure>;

/// Exit code of a verb that did what it was asked.
pub(crate) const DONE: u8 = 0;

/// Who calls: where the home is, which mesh is meant, where words go.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    pub(crate) out: Out,
    pub(crate) home: Home,
    pub(crate) env: Env,
    pub(crate) mesh: Option<String>,
}

impl Caller {
    /// The daemon of this home.
    pub(crate) fn client(&self) -> Result<Client, Failure> {
        Client::new(&self.home, self.mesh.as_deref())
    }

    /// The home's configuration.
    pub(crate) fn config(&self) -> Result<Config, Failure> {
        Ok(Config::resolve(RawConfig::default(), &self.env, &self.home)?)
    }
}

fn run(cli: Cli, out: Out) -> Ended {
    let Cli { global: Global { mesh, .. }, verb } = cli;
    if let Verb::Completions(args) = &verb {
        let mut script = Vec::new();
        clap_complete::generate(args.shell, &mut Cli::command(), "peerloom", &mut script);
        return match std::io::Write::write_all(&mut std::io::stdout(), &script) {
            Ok(()) => Ok(DONE),
            Err(error) => Err(Failure::failed("stdout", &error)),
        };
    }
    let env = Env::capture();
    let home = env.home(None)?;
    let caller = Caller { out, home, env, mesh };
    let runtime = runtime(&verb).map_err(|error| Failure::failed("runtime", &error))?;
    let ended = runtime.block_on(dispatch(&caller, verb));
    // What is left are reads of standard input and the like: nothing worth waiting for.
    runtime.shutdown_background();
    ended
}

/// The daemon uses every core; a client call is over before a second thread would have started.
fn runtime(verb: &Verb) -> std::io::Result<tokio::runtime::Runtime> {
    let mut builder = if matches!(verb, Verb::Up(_)) {
        tokio::runtime::Builder::new_multi_thread()
    } else {
        tokio::runtime::Builder::new_current_thread()
    };
    builder.enable_all().build()
}

async fn dispatch(caller: &Caller, verb: Verb) -> Ended {
    match verb {
        Verb::Init(args) => membership::init(caller, args).await,
        Verb::Invite(args) => invite::invite(caller, args).await,
        Verb::Join(args) => membership::join(caller, args).await,
        Verb::Leave => membership::leave(caller).await,
        Verb::Up(args) => up::up(caller, args).await,
        Verb::Down(args) => down::down(caller, &args).await,
        Verb::Logs(args) => logs::logs(caller, &args).await,
        Verb::Status => status::status(caller).await,
        Verb::Peers => peers::peers(caller).await,
        Verb::Ping(args) => ping::ping(caller, args).await,
        Verb::Netcheck => network::netcheck(caller).await,
        Verb::Why(args) => network::why(caller, args).await,
        Verb::Trace(args) => network::trace(caller, args).await,
        Verb::Send(args) if args.batch => batch::batch(caller, &args).await,
        Verb::Send(args) => send::send(caller, args).await,
        Verb::Inbox(args) => inbox::inbox(caller, args).await,
        Verb::Message(args) => outbox::message(caller, &args).await,
        Verb::Outbox(args) => outbox::outbox(caller, args.action).await,
        Verb::Member(args) => match args.action {
            MemberAction::List => peers::members(caller).await,
        },
        Verb::Revoke(args) => peers::revoke(caller, args).await,
        Verb::Doctor => doctor::doctor(caller).await,
        Verb::Completions(_) => unreachable!("completions are printed before a home is needed"),
        Verb::Demo(args) => demo::demo(caller, &args).await,
    }
}

/// Help and version are no errors; the rest is, in the form that was asked for.
fn not_parsed(error: &clap::Error, out: Out) -> ExitCode {
    use clap::error::ErrorKind::{DisplayHelp, DisplayHelpOnMissingArgumentOrSubcommand, DisplayVersion};
    let is_help = matches!(error.kind(), DisplayHelp | DisplayVersion);
    if !out.is_json() || is_help {
        // A closed terminal leaves nobody to tell.
        error.print().unwrap_or(());
        return ExitCode::from(if is_help { DONE } else { crate::failure::Kind::Usage.exit_code() });
    }
    let text = if error.kind() == DisplayHelpOnMissingArgumentOrSubcommand {
        "no verb was given".to_owned()
    } else {
        let rendered = error.render().to_string();
        let first = rendered.split("\n\n").next().unwrap_or_default();
        first.trim_start_matches("error: ").replace('\n', " ").trim().to_owned()
    };
    let failure = Failure::usage(text).next("peerloom --help, or --help after the verb");
    out.failure(&failure);
    ExitCode::from(failure.kind.exit_code())
}
