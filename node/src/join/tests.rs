use super::link::InviteLinkError;
use super::*;

#[test]
fn an_address_is_read_whatever_its_case_and_without_its_fragment() {
    let link = InviteLink::parse(" HTTPS://Mesh.Example/i/7q2m9kxa#4Z7P-1QXK-88TN-RW3D ").unwrap();
    assert_eq!(link.to_string(), "https://mesh.example/i/7Q2M9KXA");
}

#[test]
fn other_texts_are_no_address() {
    for text in [
        "",
        "7Q2M9KXA",
        "https://mesh.example",
        "https://mesh.example/i/",
        "ftp://x/i/7Q2M9KXA",
        "https://mesh.example/i/7Q2M9KX!",
    ] {
        assert_eq!(InviteLink::parse(text), Err(InviteLinkError), "{text:?}");
    }
}

#[test]
fn a_code_may_be_pasted_with_its_address() {
    let alone = code_of("4z7p-1qxk-88tn-rw3d").unwrap().lookup();
    let pasted = code_of("https://mesh.example/i/7Q2M9KXA#4Z7P1QXK88TNRW3D\n").unwrap().lookup();
    assert_eq!(alone, pasted);
}

#[test]
fn a_wrong_code_is_not_found_and_says_so() {
    let origin = Origin::parse("https://mesh.example").unwrap();
    let refused = CoordinatorError::Refused {
        origin: origin.clone(),
        status: 404,
        code: "invite".to_owned(),
        text: "no".to_owned(),
        retry_after_s: None,
    };
    let failure = Failure::from(no_invite(refused, &origin));
    assert_eq!((failure.kind.exit_code(), failure.code.as_str()), (4, "invite"));
    assert!(failure.text.contains("no invite under this code"), "{}", failure.text);
}

#[test]
fn a_used_invite_is_denied_and_a_throttled_one_says_when() {
    let refused = |status, code: &str, wait| {
        Failure::from(JoinError::from(CoordinatorError::Refused {
            origin: Origin::parse("https://mesh.example").unwrap(),
            status,
            code: code.to_owned(),
            text: "text".to_owned(),
            retry_after_s: wait,
        }))
    };
    assert_eq!(refused(400, "invite-used", None).kind, Kind::Denied);
    let throttled = refused(429, "throttled", Some(42));
    assert_eq!((throttled.kind, throttled.next.as_str()), (Kind::Busy, "try again in 42 s"));
}
