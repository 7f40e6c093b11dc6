//! `message` and `outbox`.

use super::{Caller, DONE, Ended};
use crate::api::client::segment;
use crate::api::shapes::{
    AbortRequest, DoneShape, MessageShape, OutboxPage, OutboxShape, RecipientShape, RequeueRequest,
    RequeueShape,
};
use crate::cli::{MessageArgs, OutboxAction, OutboxListArgs, RequeueArgs};
use crate::clock::Clock;
use crate::render::table;
use crate::render::text::one_line;
use crate::render::time::clock;

pub(super) async fn message(caller: &Caller, args: &MessageArgs) -> Ended {
    let path = format!("/v1/messages/{}", segment(args.id.trim()));
    let message: MessageShape = caller.client()?.get(&path, &[]).await?;
    caller.out.both(&message, || {
        let now = Clock::start().now().wall.0;
        let rows: Vec<_> = message.recipients.iter().map(|recipient| recipient_row(recipient, now)).collect();
        table::lines(["TO", "STATE", "PATH", "AT"], &rows)
    })?;
    let failed =
        |recipient: &RecipientShape| matches!(recipient.state.as_str(), "rejected" | "expired" | "dead");
    if message.recipients.iter().any(failed) {
        caller.out.next(format!("peerloom outbox requeue {}", message.id));
    } else {
        caller.out.next("peerloom outbox");
    }
    Ok(DONE)
}

fn recipient_row(recipient: &RecipientShape, now_ms: u64) -> [String; 4] {
    let state = state_text(&recipient.state, recipient.code.as_deref(), recipient.replaced_by.as_deref());
    let path = recipient.path.clone().unwrap_or_else(|| "-".to_owned());
    [recipient.handle.clone(), state, path, clock(recipient.at_ms, now_ms)]
}

fn state_text(state: &str, code: Option<&str>, replaced_by: Option<&str>) -> String {
    let code = code.map(|code| format!(": {}", one_line(code))).unwrap_or_default();
    let replaced = replaced_by.map(|id| format!(", sent again as {id}")).unwrap_or_default();
    format!("{state}{code}{replaced}")
}

pub(super) async fn outbox(caller: &Caller, action: Option<OutboxAction>) -> Ended {
    match action {
        None => list(caller, &OutboxListArgs { limit: 100, ..OutboxListArgs::default() }).await,
        Some(OutboxAction::List(args)) => list(caller, &args).await,
        Some(OutboxAction::Requeue(args)) => requeue(caller, args).await,
        Some(OutboxAction::Abort(args)) => abort(caller, args).await,
    }
}

async fn list(caller: &Caller, args: &OutboxListArgs) -> Ended {
    let state = match args {
        OutboxListArgs { failed: true, .. } => "failed",
        OutboxListArgs { delivered: true, .. } => "delivered",
        OutboxListArgs { all: true, .. } => "all",
        OutboxListArgs { .. } => "open",
    };
    let query = [("state", Some(state.to_owned())), ("limit", Some(args.limit.to_string()))];
    let page: OutboxPage = caller.client()?.get("/v1/outbox", &query).await?;
    caller.out.both(&page, || {
        let now = Clock::start().now().wall.0;
        let rows: Vec<_> = page.rows.iter().map(|row| outbox_row(row, now)).collect();
        if rows.is_empty() {
            Vec::new()
        } else {
            table::lines(["MESSAGE", "TO", "STATE", "SENT", "AT"], &rows)
        }
    })?;
    if page.rows.is_empty() {
        caller.out.note("nothing there");
        caller.out.next("peerloom outbox list --all");
    } else if page.rows.iter().any(|row| matches!(row.state.as_str(), "rejected" | "expired" | "dead")) {
        caller.out.next("peerloom outbox requeue --all");
    } else {
        caller.out.next("peerloom message MESSAGE");
    }
    Ok(DONE)
}

fn outbox_row(row: &OutboxShape, now_ms: u64) -> [String; 5] {
    let state = state_text(&row.state, row.code.as_deref(), row.replaced_by.as_deref());
    [row.id.clone(), row.to.handle.clone(), state, clock(row.created_at_ms, now_ms), clock(row.at_ms, now_ms)]
}

async fn requeue(caller: &Caller, args: RequeueArgs) -> Ended {
    let request = RequeueRequest { ids: args.ids, all: args.all };
    let shape: RequeueShape = caller.client()?.post("/v1/outbox/requeue", &request).await?;
    caller.out.both(&shape, || {
        let line = |row: &crate::api::shapes::RequeuedShape| {
            format!("{} to {}: now {}", row.old, row.to.handle, row.id)
        };
        shape.requeued.iter().map(line).collect()
    })?;
    if shape.requeued.is_empty() {
        caller.out.note("nothing had failed");
    }
    caller.out.next("peerloom outbox");
    Ok(DONE)
}

async fn abort(caller: &Caller, args: MessageArgs) -> Ended {
    let done: DoneShape = caller.client()?.post("/v1/outbox/abort", &AbortRequest { id: args.id }).await?;
    caller.out.both(&done, || vec![one_line(&done.text)])?;
    caller.out.next("peerloom outbox");
    Ok(DONE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_shows_its_code_and_what_became_of_it() {
        assert_eq!(state_text("rejected", Some("revoked"), None), "rejected: revoked");
        assert_eq!(state_text("dead", None, Some("0a")), "dead, sent again as 0a");
        assert_eq!(state_text("stored", None, None), "stored");
    }
}
