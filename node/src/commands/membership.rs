//! `init`, `join` and `leave`: through the daemon if it runs, else in process under the home's lock.

use std::io::{IsTerminal, Read};
use std::path::Path;

use super::{Caller, DONE, Ended};
use crate::api::shapes::{DoneShape, InitRequest, InitShape, JoinRequest, JoinShape};
use crate::cli::{InitArgs, JoinArgs};
use crate::clock::Clock;
use crate::failure::{Failure, Kind};
use crate::init::make_mesh;
use crate::join::join_mesh;
use crate::membership::{init_plan, join_plan, parse_handle, present_init, present_join, refuse_same_name};
use crate::render::progress::Progress;
use crate::render::text::one_line;
use crate::render::{Echo, ask};

pub(super) async fn init(caller: &Caller, args: InitArgs) -> Ended {
    let coordinator = match args.coordinator {
        Some(origin) => origin,
        None => asked("the coordinator's origin", "--coordinator ORIGIN")?,
    };
    let handle = handle_or_ask(args.name)?;
    let token = token(caller, args.token_file.as_deref())?;
    let request = InitRequest { name: args.mesh_name, coordinator, handle, token };
    let made = make(caller, request).await?;
    show_made(caller, &made)?;
    caller.out.next("peerloom up --detach, then peerloom invite");
    Ok(DONE)
}

/// Makes a mesh; asks for the coordinator's token if it turns out to want one.
pub(super) async fn make(caller: &Caller, mut request: InitRequest) -> Result<InitShape, Failure> {
    match make_once(caller, &request).await {
        Err(failure) if failure.code == "token" && request.token.is_none() => {
            let Some(token) = ask("the coordinator's token for new meshes", Echo::Off)? else {
                return Err(failure);
            };
            request.token = Some(token);
            make_once(caller, &request).await
        }
        other => other,
    }
}

async fn make_once(caller: &Caller, request: &InitRequest) -> Result<InitShape, Failure> {
    let client = caller.client()?;
    let _waiting = Progress::spinner(caller.out, format!("asking {}", one_line(&request.coordinator)));
    if client.is_up().await {
        return client.post("/v1/meshes/init", request).await;
    }
    let plan = init_plan(request)?;
    let lock = caller.home.lock()?;
    refuse_same_name(&plan, &caller.home.meshes()?)?;
    let made = make_mesh(plan, caller.config()?.ca_file.as_deref(), Clock::start().now().wall).await?;
    let (owner, member, recovery) = (made.owner, made.member, made.recovery);
    let info = caller.home.create_mesh(made.mesh).await?;
    drop(lock);
    Ok(present_init(&info, member, owner, &recovery))
}

pub(super) fn show_made(caller: &Caller, made: &InitShape) -> Result<(), Failure> {
    caller.out.both(made, || {
        vec![
            format!("made {} ({}) at {}", one_line(&made.mesh.name), &made.mesh.id[..8], made.origin),
            format!("this node is {} ({})", made.me.handle, &made.me.member[..8]),
            String::new(),
            format!("owner key     {}", made.owner_key_file),
            format!("recovery key  {}", made.recovery_key),
            String::new(),
            "Write the recovery key down now: it is shown once and kept nowhere. Move the owner key to a safe"
                .to_owned(),
            "place. Without both, nobody can ever replace this mesh's admins, its coordinator or its owner: the"
                .to_owned(),
            "mesh goes on as it is, and whoever gets hold of either rules it.".to_owned(),
        ]
    })
}

pub(super) async fn join(caller: &Caller, args: JoinArgs) -> Ended {
    if args.url.contains('#') {
        return Err(Failure::new(
            Kind::Usage,
            "code-in-argv",
            "the invite's code stands on the command line, where other users of this machine can read it",
        )
        .next("leave out everything from '#' on and paste the code when asked; if others use this machine, ask for another invite"));
    }
    let code = read_code()?;
    let request = JoinRequest { url: args.url, code, handle: handle_if_typed(args.name)? };
    let joined = join_once(caller, &request).await?;
    caller.out.both(&joined, || {
        let confirmed = if joined.state == "joined" {
            "confirmed by another member"
        } else {
            "admitted, not yet confirmed by another member"
        };
        vec![
            format!(
                "joined {} ({}) as {}",
                one_line(&joined.mesh.name),
                &joined.mesh.id[..8],
                joined.me.handle
            ),
            format!("invited by {}; {confirmed}", joined.inviter.handle),
        ]
    })?;
    if caller.client()?.is_up().await {
        caller.out.next("peerloom peers");
    } else {
        caller.out.next("peerloom up --detach");
    }
    Ok(DONE)
}

async fn join_once(caller: &Caller, request: &JoinRequest) -> Result<JoinShape, Failure> {
    let client = caller.client()?;
    let _waiting = Progress::spinner(caller.out, "joining");
    if client.is_up().await {
        return client.post("/v1/meshes/join", request).await;
    }
    let lock = caller.home.lock()?;
    let present = caller.home.meshes()?.into_iter().map(|mesh| mesh.id).collect();
    let plan = join_plan(request, present)?;
    let joined = join_mesh(plan, caller.config()?.ca_file.as_deref(), Clock::start()).await?;
    let (member, inviter, head) = (joined.member, joined.inviter, joined.head);
    let info = caller.home.create_mesh(joined.mesh).await?;
    drop(lock);
    Ok(present_join(&info, member, inviter, head))
}

pub(super) async fn leave(caller: &Caller) -> Ended {
    let done: DoneShape = caller.client()?.post("/v1/leave", &serde_json::json!({})).await?;
    caller.out.both(&done, || vec![one_line(&done.text)])?;
    caller.out.next("peerloom join URL --name HANDLE, or peerloom down");
    Ok(DONE)
}

/// The invite's code: from the terminal unseen, else from standard input.
fn read_code() -> Result<String, Failure> {
    if let Some(code) = ask("the invite's code (second line)", Echo::Off)? {
        return Ok(code);
    }
    let stdin = std::io::stdin();
    if stdin.is_terminal() {
        return Err(
            Failure::usage("no code was given").next("type it when asked, or give it on standard input")
        );
    }
    let mut code = String::new();
    let read = stdin.lock().take(CODE_BYTES_MAX).read_to_string(&mut code);
    read.map_err(|error| Failure::failed("stdin", &error))?;
    if code.trim().is_empty() {
        return Err(Failure::usage("no code came on standard input")
            .next("printf '%s' \"$CODE\" | peerloom join URL --name HANDLE"));
    }
    Ok(code)
}

/// The handle from the flag, or from the terminal.
pub(super) fn handle_or_ask(name: Option<String>) -> Result<String, Failure> {
    let handle = match name {
        Some(name) => name,
        None => asked("this node's handle", "--name HANDLE")?,
    };
    parse_handle(&handle).map(|handle| handle.to_string())
}

/// The handle from the flag, or from the terminal, where nothing means the invite's own.
fn handle_if_typed(name: Option<String>) -> Result<Option<String>, Failure> {
    let typed = match name {
        Some(name) => Some(name),
        None => {
            ask("this node's handle (empty for the invite's own)", Echo::On)?.filter(|name| !name.is_empty())
        }
    };
    typed.map(|name| parse_handle(&name).map(|handle| handle.to_string())).transpose()
}

fn asked(what: &str, flag: &str) -> Result<String, Failure> {
    let missing = || Failure::usage(format!("{what} is missing")).next(format!("pass {flag}"));
    ask(what, Echo::On)?.filter(|answer| !answer.is_empty()).ok_or_else(missing)
}

/// The coordinator's token for new meshes: the file's, else the environment's.
pub(super) fn token(caller: &Caller, file: Option<&Path>) -> Result<Option<String>, Failure> {
    let Some(path) = file else { return Ok(caller.env.get("PEERLOOM_MESH_TOKEN").map(str::to_owned)) };
    let text = std::fs::read_to_string(path).map_err(|error| {
        Failure::new(Kind::Usage, "token-file", format!("failed to read {}: {error}", path.display()))
            .next("the coordinator's operator finds the token in DATA/mesh-token")
    })?;
    Ok(Some(text))
}

/// Far more than an address and a code.
const CODE_BYTES_MAX: u64 = 4 << 10;
