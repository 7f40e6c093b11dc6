//! `peerloom-coordinator`: parses the command line, prints, and turns failures into exit codes.

use std::error::Error;
use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};
use peerloom_coordinator::config::{Config, ConfigError, ConfigFile, Env, LogFormat, RawConfig};
use peerloom_coordinator::server::{self, ServeError, Started};
use serde_json::json;
use tracing_subscriber::EnvFilter;

const AFTER_HELP: &str = "\
Start here:
  peerloom-coordinator serve                       on this machine: http://127.0.0.1:7700, nothing else to install
  peerloom init acme --coordinator http://127.0.0.1:7700 --name laptop

Exit codes: 0 done, 1 failed, 2 usage, 5 denied, 8 the data directory is in use,
  9 damaged database or key (left as it was), 10 database of a newer version, 11 database or key missing,
  12 another peerloom-coordinator took the database over";

const SERVE_HELP: &str = "\
Examples:
  peerloom-coordinator serve
      For this machine only: loopback, no TLS, anyone here may create a mesh.
  peerloom-coordinator serve --listen 0.0.0.0:7700 --origin https://mesh.example --tls-cert chain.pem --tls-key key.pem
      Speaks TLS itself. Prints, once, the token that creating a mesh needs.
  peerloom-coordinator serve --origin https://mesh.example --trusted-proxy 127.0.0.1 --stun 0.0.0.0:3478
      Behind a TLS proxy on the same machine that passes WebSockets and sets X-Forwarded-For.

Every setting can also stand in the environment, as PEERLOOM_COORDINATOR_LISTEN and so on, or in the
TOML file of --config (or PEERLOOM_COORDINATOR_CONFIG), under its long name. A flag outranks the
environment, which outranks the file.

It looks after itself: /health says that the process runs, /ready that it takes mail, /metrics counts
(Prometheus). SIGTERM tells every node when to come back and ends within ten seconds. Back up the data
directory while it is stopped; the key in it is what meshes know this coordinator by.";

/// The light, blind coordinator of Peerloom meshes: introduces peers, keeps sealed mail for those
/// who are away, sequences the signed mesh log. It can read none of what it carries.
#[derive(Parser)]
#[command(name = "peerloom-coordinator", version, after_help = AFTER_HELP, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Runs the coordinator in the foreground until SIGTERM or Ctrl-C.
    #[command(after_long_help = SERVE_HELP, after_help = "More with --help: examples, environment, file.")]
    Serve(Box<Serve>),
    /// Prints shell completions.
    Completions {
        /// For which shell.
        shell: clap_complete::Shell,
    },
}

#[derive(clap::Args)]
struct Serve {
    /// TOML file with settings under their long names.
    #[arg(long, value_name = "FILE", env = "PEERLOOM_COORDINATOR_CONFIG")]
    config: Option<PathBuf>,
    /// One JSON line when ready, and JSON errors.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    raw: RawConfig,
}

fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Serve(serve) => {
            let json = serve.json;
            match run(&serve) {
                Ok(()) => ExitCode::SUCCESS,
                Err(failure) => failure.report(json),
            }
        }
        Command::Completions { shell } => {
            clap_complete::generate(shell, &mut Cli::command(), "peerloom-coordinator", &mut io::stdout());
            ExitCode::SUCCESS
        }
    }
}

/// Ends the process with its own exit code.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error("{filter:?} is not a log filter")]
    LogFilter { filter: String },
    #[error(transparent)]
    Serve(#[from] ServeError),
    #[error("failed to start the runtime")]
    Runtime(#[source] io::Error),
}

fn run(serve: &Serve) -> Result<(), Failure> {
    let file = serve.config.as_deref().map_or(Ok(ConfigFile::default()), ConfigFile::read)?;
    let config = Config::resolve(&serve.raw, &Env::of_process(), &file)?;
    log_to_stderr(&config)?;
    raise_file_limit();
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(Failure::Runtime)?;
    let (json, config) = (serve.json, &config);
    runtime.block_on(async {
        let shutdown = signals().map_err(Failure::Runtime)?;
        server::serve(config, shutdown, |started| announce(&started, json)).await.map_err(Failure::Serve)
    })
}

fn log_to_stderr(config: &Config) -> Result<(), Failure> {
    let filter =
        EnvFilter::try_new(&config.log).map_err(|_| Failure::LogFilter { filter: config.log.clone() })?;
    let colours = io::stderr().is_terminal();
    let logs = tracing_subscriber::fmt().with_env_filter(filter).with_ansi(colours).with_writer(io::stderr);
    match config.log_format {
        LogFormat::Human => logs.init(),
        LogFormat::Json => logs.json().init(),
    }
    Ok(())
}

/// The usual soft limit of 1,024 descriptors is a limit of so many members.
fn raise_file_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }) {
        tracing::debug!(%error, "The limit of open files stays as it is.");
    }
}

/// Resolves at the first SIGTERM or SIGINT. The handlers stand before the port answers, so that no
/// signal kills a process that has said it is ready.
fn signals() -> io::Result<impl Future<Output = ()>> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

/// Tells whoever started it. A closed stdout is no reason to stop serving.
fn announce(started: &Started, json: bool) {
    let Started { url, origin, coordinator, stun, stun_second, data, mesh_token } = started;
    let mut out = io::stdout().lock();
    let written = if json {
        let line = json!({
            "schema_version": 1,
            "event": "ready",
            "url": url,
            "origin": origin.as_str(),
            "coordinator": coordinator,
            "stun": stun,
            "stun_second": stun_second,
            "data": data,
            "mesh_token": mesh_token,
        });
        writeln!(out, "{line}")
    } else {
        let token = mesh_token.as_ref().map(|token| {
            let file = data.join("mesh-token");
            format!("mesh token, shown once and kept in {}: {token}\n", file.display())
        });
        writeln!(out, "{}ready: listening on {url}", token.unwrap_or_default())
    };
    if let Err(error) = written.and_then(|()| out.flush()) {
        tracing::debug!(%error, "Nobody reads what is printed.");
    }
    tracing::info!(%origin, data = %data.display(), "Coordinator ready.");
}

impl Failure {
    fn report(&self, json: bool) -> ExitCode {
        let (code, name) = self.code();
        let mut text = self.to_string();
        let mut cause = self.source();
        while let Some(error) = cause {
            text.push_str(": ");
            text.push_str(&error.to_string());
            cause = error.source();
        }
        let mut err = io::stderr().lock();
        let written = if json {
            writeln!(err, "{}", json!({ "schema_version": 1, "error": { "code": name, "text": text } }))
        } else {
            writeln!(err, "error: {text}")
        };
        if written.is_err() {
            tracing::debug!("Nobody reads what is printed.");
        }
        ExitCode::from(code)
    }

    fn code(&self) -> (u8, &'static str) {
        match self {
            Self::Config(_) | Self::LogFilter { .. } => (2, "usage"),
            Self::Runtime(_) => (1, "failed"),
            Self::Serve(error) => error.exit_code(),
        }
    }
}
