//! Who gets in: whoever has an unused code that still holds, and nobody else.

use peerloom_proto::IdentityKey;
use peerloom_tests::wait::{SOON, pause, until};
use peerloom_tests::{CoordinatorPlan, Invite, Mesh, http, join_with_key};
use serde_json::json;

#[test]
fn a_wrong_code_is_refused_and_the_right_one_still_works() {
    let mesh = owner_alone();
    let invite = mesh.node("laptop").invite(&[]);
    let build = mesh.stranger("build");
    let wrong = Invite { code: "0000-0000-0000-0000".to_owned(), ..invite.clone() };
    assert_eq!(build.join(&wrong).refused(4), "invite");

    let misspelt = Invite { code: "UUUU-UUUU-UUUU-UUUU".to_owned(), ..invite.clone() };
    assert_eq!(build.join(&misspelt).refused(2), "invite-code");
    let cut = Invite { code: invite.code[..14].to_owned(), ..invite.clone() };
    assert_eq!(build.join(&cut).refused(2), "invite-code");

    build.join(&invite).ok();
}

#[test]
fn a_code_is_read_in_any_case_and_with_letters_that_look_like_digits() {
    let mesh = owner_alone();
    let invite = mesh.node("laptop").invite(&[]);
    let typed = invite.code.to_lowercase().replace('0', "o").replace('1', "l").replace('-', "");
    mesh.stranger("build").join(&Invite { code: typed, ..invite }).ok();
}

#[test]
fn a_used_invite_lets_nobody_else_in_and_one_with_two_uses_lets_two() {
    let mesh = owner_alone();
    let laptop = mesh.node("laptop");
    let once = laptop.invite(&[]);
    mesh.stranger("build").join(&once).ok();
    assert_eq!(mesh.stranger("late").join(&once).refused(4), "invite");

    let twice = laptop.invite(&["--uses", "2"]);
    mesh.stranger("one").join(&twice).ok();
    mesh.stranger("two").join(&twice).ok();
    assert_eq!(mesh.stranger("three").join(&twice).refused(4), "invite");
}

#[test]
fn an_expired_invite_and_a_cancelled_one_let_nobody_in() {
    let mesh = owner_alone();
    let laptop = mesh.node("laptop");
    let brief = laptop.run(&["invite", "--expires", "1s", "--json"]);
    if brief.code == 0 {
        pause(std::time::Duration::from_millis(1500));
        let invite = Invite { url: field(&brief.json(), "url"), code: field(&brief.json(), "code") };
        assert_eq!(mesh.stranger("late").join(&invite).refused(4), "invite");
    } else {
        // A shorter life than a person needs to type the code is refused at the inviter.
        assert_eq!(brief.refused(2), "usage");
    }

    let cancelled = laptop.invite(&[]);
    let listed = laptop.run(&["invite", "list", "--json"]).ok();
    let id = cancelled.url.rsplit('/').next().expect("an address ends with the id");
    assert!(listed.stdout.contains(id), "{}", listed.stdout);
    assert!(!listed.stdout.contains(&cancelled.code), "the code is not kept");
    laptop.json(&["invite", "cancel", id]);
    assert_eq!(mesh.stranger("build").join(&cancelled).refused(4), "invite");
    let listed = laptop.run(&["invite", "list", "--json"]).ok();
    assert!(!listed.stdout.contains(id), "{}", listed.stdout);
}

fn field(value: &serde_json::Value, name: &str) -> String {
    value[name].as_str().expect("a text").to_owned()
}

#[test]
fn an_invite_for_one_handle_serves_only_that_handle_and_a_taken_handle_is_refused() {
    let mesh = owner_alone();
    let laptop = mesh.node("laptop");
    let bound = laptop.invite(&["--handle", "build"]);
    assert_eq!(mesh.stranger("other").join(&bound).refused(5), "handle");
    mesh.stranger("build").join(&bound).ok();

    let free = laptop.invite(&[]);
    assert_eq!(
        mesh.stranger("laptop2")
            .run_with(&["join", &free.url, "--name", "laptop", "--json"], &free.code)
            .refused(8),
        "handle-taken"
    );
}

#[test]
fn a_missing_code_or_name_is_a_usage_error_that_says_what_is_missing() {
    let mesh = owner_alone();
    let invite = mesh.node("laptop").invite(&[]);
    let build = mesh.stranger("build");
    let answer = build.run(&["join", &invite.url, "--name", "build", "--json"]);
    answer.clone().refused(2);
    assert!(answer.error_text().contains("code"), "{answer:?}");
    let answer = build.run_with(&["join", &invite.url, "--json"], &invite.code);
    answer.clone().refused(2);
    assert!(answer.stdout.contains("--name"), "{answer:?}");
}

#[test]
fn the_sixth_guess_in_a_minute_is_throttled() {
    let mesh = owner_alone();
    let lookup = |n: u8| {
        mesh.coordinator.ask("POST", "/v2/invites/lookup", Some(&json!({"lookup": hex::encode([n; 16])})))
    };
    let statuses: Vec<u16> = (0..6).map(|n| lookup(n).status).collect();
    assert_eq!(statuses, [404, 404, 404, 404, 404, 429]);
    let throttled = lookup(6);
    assert!(throttled.header("retry-after").is_some(), "{}", throttled.head);
    assert_eq!(throttled.json()["error"]["code"], "throttled");
}

#[test]
fn behind_a_trusted_proxy_each_forwarded_address_has_its_own_guesses() {
    let trusting = CoordinatorPlan::plain().argument("--trusted-proxy=127.0.0.1");
    for (plan, last) in [(trusting, 404), (CoordinatorPlan::plain(), 429)] {
        let mesh = Mesh::empty(plan);
        let lookup = json!({"lookup": hex::encode([1; 16])});
        let statuses = (0..6).map(|n| {
            let from = format!("X-Forwarded-For: 198.51.100.{n}");
            let answer =
                http::on_port(mesh.coordinator.port(), "POST", "/v2/invites/lookup", &[&from], Some(&lookup));
            answer.expect("the coordinator answers").status
        });
        let statuses: Vec<u16> = statuses.collect();
        assert_eq!((statuses[0], statuses[5]), (404, last), "{statuses:?}");
    }
}

#[test]
fn joining_reports_the_inviter_and_the_inviter_is_told() {
    let mut mesh = owner_alone();
    let build = mesh.stranger("build");
    let joined = build.join(&mesh.node("laptop").invite(&[])).ok().json();
    assert_eq!(joined["inviter"]["handle"], "laptop", "{joined}");
    assert_eq!(joined["mesh"]["name"], "acme", "{joined}");
    mesh.admit_joined(build);
    until("the inviter to know the new member", SOON, || {
        let members = mesh.node("laptop").run(&["member", "list", "--json"]).ok().stdout;
        if members.contains("\"build\"") { Ok(()) } else { Err(members) }
    });
}

#[test]
fn the_consent_page_is_the_same_for_every_invite_and_runs_nothing() {
    let mesh = owner_alone();
    let real = mesh.node("laptop").invite(&[]);
    let path = real.url.strip_prefix(&mesh.coordinator.origin()).expect("an address of this coordinator");
    let page = mesh.coordinator.ask("GET", path, None);
    let other = mesh.coordinator.ask("GET", "/i/00000000", None);
    assert_eq!((page.status, other.status), (200, 200));
    let text = page.text();
    assert!(text.contains("peerloom join"), "{text}");
    assert!(!text.contains("<script") && !text.contains("src="), "{text}");
    assert!(
        page.header("content-security-policy").is_some_and(|policy| policy.contains("default-src 'none'")),
        "{}",
        page.head
    );
    assert_eq!(text.replace(path, ""), other.text().replace("/i/00000000", ""));
}

#[test]
fn a_key_joins_once_and_never_again_not_even_after_it_was_revoked() {
    let mesh = owner_alone();
    let laptop = mesh.node("laptop");
    let key = IdentityKey::from_seed(&[0x17; 32]);
    assert_eq!(join_with_key(&mesh.coordinator, &laptop.invite(&[]), &key, "first").status, 200);
    let again = join_with_key(&mesh.coordinator, &laptop.invite(&[]), &key, "second");
    assert!((400..500).contains(&again.status), "{} {}", again.status, again.text());

    until("the member to be known", SOON, || {
        laptop.peer("first").map(drop).ok_or_else(|| "not yet".to_owned())
    });
    laptop.json(&["revoke", "first"]);
    let back = join_with_key(&mesh.coordinator, &laptop.invite(&[]), &key, "third");
    assert!((400..500).contains(&back.status), "{} {}", back.status, back.text());
    // The handle is not reused either: old messages keep meaning whom they meant.
    let other = IdentityKey::from_seed(&[0x18; 32]);
    let same_name = join_with_key(&mesh.coordinator, &laptop.invite(&[]), &other, "first");
    assert_eq!(same_name.json()["error"]["code"], "handle-taken", "{}", same_name.text());
}

fn owner_alone() -> Mesh {
    let mut mesh = Mesh::empty(CoordinatorPlan::plain());
    let laptop = mesh.stranger("laptop");
    mesh.admit(laptop);
    mesh
}
