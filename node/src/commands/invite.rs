//! `invite`: make, list, cancel.

use super::{Caller, DONE, Ended};
use crate::api::client::segment;
use crate::api::shapes::{DoneShape, InviteListShape, InviteRequest, InviteShape};
use crate::cli::{InviteAction, InviteArgs, InviteCreate};
use crate::clock::Clock;
use crate::render::table;
use crate::render::text::one_line;
use crate::render::time::{span, stamp};

pub(super) async fn invite(caller: &Caller, args: InviteArgs) -> Ended {
    match args.action {
        None => create(caller, args.create).await,
        Some(InviteAction::Create(create_args)) => create(caller, create_args).await,
        Some(InviteAction::List) => list(caller).await,
        Some(InviteAction::Cancel { id }) => cancel(caller, &id).await,
    }
}

async fn create(caller: &Caller, args: InviteCreate) -> Ended {
    let request = InviteRequest {
        life_s: args.expires.map(|life| life.as_secs()),
        uses: args.uses,
        handle: args.handle,
    };
    let made: InviteShape = caller.client()?.post("/v1/invites", &request).await?;
    let now = Clock::start().now().wall.0;
    caller.out.both(&made, || lines(&made, now))?;
    caller.out.next(format!("on the other machine: peerloom join {} --name HANDLE", made.url));
    Ok(DONE)
}

fn lines(made: &InviteShape, now_ms: u64) -> Vec<String> {
    let uses = if made.uses == 1 { "one use".to_owned() } else { format!("{} uses", made.uses) };
    // Rounded up: an invite made a moment ago for 24 h still has them.
    let life = span(made.expires_at_ms.saturating_sub(now_ms).next_multiple_of(1_000));
    vec![
        "Give them both lines, by different ways if you can:".to_owned(),
        format!("  {}", made.url),
        format!("  {}        {uses}, {life}", made.code),
    ]
}

async fn list(caller: &Caller) -> Ended {
    let list: InviteListShape = caller.client()?.get("/v1/invites", &[]).await?;
    caller.out.both(&list, || {
        let rows: Vec<_> = list
            .invites
            .iter()
            .map(|invite| {
                let used = format!("{} of {}", invite.used, invite.uses);
                [
                    invite.id.clone(),
                    used,
                    stamp(invite.created_at_ms),
                    stamp(invite.expires_at_ms),
                    invite.url.clone(),
                ]
            })
            .collect();
        if rows.is_empty() {
            Vec::new()
        } else {
            table::lines(["INVITE", "USED", "MADE", "ENDS", "URL"], &rows)
        }
    })?;
    if list.invites.is_empty() {
        caller.out.note("no open invites");
        caller.out.next("peerloom invite");
    } else {
        caller.out.next("peerloom invite cancel INVITE");
    }
    Ok(DONE)
}

async fn cancel(caller: &Caller, id: &str) -> Ended {
    let id = id.rsplit_once("/i/").map_or(id, |(_, id)| id);
    let done: DoneShape = caller.client()?.delete(&format!("/v1/invites/{}", segment(id))).await?;
    caller.out.both(&done, || vec![one_line(&done.text)])?;
    caller.out.next("peerloom invite list");
    Ok(DONE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lines_for_people_are_the_documented_ones() {
        let made = InviteShape {
            schema_version: 1,
            url: "https://mesh.example/i/7Q2M9KXA".to_owned(),
            code: "4Z7P-1QXK-88TN-RW3D".to_owned(),
            expires_at_ms: 86_400_000,
            uses: 1,
            id: "7Q2M9KXA".to_owned(),
        };
        assert_eq!(
            lines(&made, 200),
            [
                "Give them both lines, by different ways if you can:",
                "  https://mesh.example/i/7Q2M9KXA",
                "  4Z7P-1QXK-88TN-RW3D        one use, 24 h"
            ]
        );
    }
}
