//! What a scenario file may say, and what it is told when it may not.

use super::{Scenario, Who};

const LEAST: &str = "about = \"x\"\nduration_s = 10\n[topology]\nnodes = 2\n[workload]\nmessages = 1\n";

fn error(text: &str) -> String {
    let error = Scenario::parse("x.toml", text).expect_err("refused");
    match std::error::Error::source(&error) {
        Some(source) => format!("{error} {source}"),
        None => error.to_string(),
    }
}

#[test]
fn a_host_is_a_number_or_a_word() {
    let text = format!("{LEAST}[[fault]]\nkind = \"kill\"\nwhen = {{ at_s = 1 }}\nwho = 1\nfor_s = 2\n");
    let scenario = Scenario::parse("x.toml", &text).expect("a scenario");
    assert_eq!(scenario.faults[0].hosts(), [Who::Node(1)]);
    assert_eq!(scenario.faults[0].name(), "kill");

    let text = text.replace("who = 1", "who = \"everybody\"");
    assert!(error(&text).contains("a node's number, \"coordinator\" or \"any\""), "{}", error(&text));
}

#[test]
fn what_nobody_reads_is_refused_by_name() {
    assert!(error(&format!("{LEAST}colour = 3\n")).contains("colour"));
    let fault = format!("{LEAST}[[fault]]\nkind = \"cut_links\"\nwhen = {{ at_s = 1 }}\nfor_s = 2\n");
    assert!(error(&fault).contains("for_s"), "{}", error(&fault));
    let fault = format!("{LEAST}[[fault]]\nkind = \"earthquake\"\nwhen = {{ at_s = 1 }}\n");
    assert!(error(&fault).contains("earthquake"));
}

#[test]
fn nonsense_is_refused_with_the_file_and_the_number() {
    assert_eq!(
        error(&LEAST.replace("nodes = 2", "nodes = 1")),
        "x.toml: a world has 2 to 10000 nodes, not 1"
    );
    let chatter = LEAST.replace("messages = 1", "every_s = 60");
    assert_eq!(Scenario::parse("x.toml", &chatter).expect("a scenario").workload.messages, 0);
    let both = format!("{LEAST}every_s = 60\n");
    assert_eq!(error(&both), "x.toml: a workload has messages, a list, or every_s of at least 0.01");
    let text = format!("{LEAST}senders = [2]\n");
    assert_eq!(error(&text), "x.toml: there is no node 2: the last is 1");
    let text = format!("{LEAST}[[fault]]\nkind = \"join\"\nwhen = {{ at_s = 1 }}\nby = 1\ntarget = 0\n");
    assert_eq!(error(&text), "x.toml: node 0 founds the mesh and cannot join it");
    let text = format!("{LEAST}[sweep]\nwho = \"any\"\nmoment = \"before\"\nfor_s = 1\n");
    assert_eq!(error(&text), "x.toml: a sweep names its host");
    let text = format!("{LEAST}list = [{{ at_s = 1, from = 0, to = 1, number = 0 }}]\n");
    assert_eq!(error(&text), "x.toml: two messages have the number 0");
    let text = format!("{LEAST}list = [{{ at_s = 1, from = 1, to = 1 }}]\n");
    assert_eq!(error(&text), "x.toml: message 1: node 1 sends to itself");
    let text = format!("{LEAST}list = [{{ at_s = 1, from = 1, to = 7 }}]\n");
    assert_eq!(error(&text), "x.toml: there is no node 7: the last is 1");
    assert!(error(&LEAST.replace("duration_s = 10", "duration_s = -1")).contains("a time is between"));
}

#[test]
fn a_dishonest_coordinator_does_what_it_can_be_told_to_towards_nodes_that_are_there() {
    let evil = |deed: &str, towards: &str| {
        format!(
            "{LEAST}[[fault]]\nkind = \"evil\"\ndo = \"{deed}\"\nwhen = {{ at_s = 1 }}\ntowards = {towards}\n"
        )
    };
    Scenario::parse("x.toml", &evil("withhold", "[1]")).expect("a scenario");
    assert!(error(&evil("sulk", "[1]")).contains("sulk"));
    assert!(error(&evil("lie", "[1]")).contains("`lies` with lie"));
    assert_eq!(error(&evil("withhold", "[2]")), "x.toml: there is no node 2: the last is 1");
}

#[test]
fn a_link_that_cannot_be_is_refused_with_its_name_and_bounds() {
    let link = |kind: &str, says: &str| error(&format!("{LEAST}[topology.link.{kind}]\n{says}\n"));
    assert_eq!(
        link("uplink", "loss_percent = 120.0"),
        "x.toml: topology.link.uplink: loss_percent is 0 to 100, not 120"
    );
    assert_eq!(
        link("direct", "queue_bytes = 9000"),
        "x.toml: topology.link.direct: queue_bytes is for a line with a rate_kbps"
    );
    assert_eq!(
        link("direct", "rate_kbps = 64\nqueue_bytes = 100"),
        "x.toml: topology.link.direct: queue_bytes holds at least one datagram of 1500 bytes"
    );
    assert_eq!(link("direct", "rate_kbps = 1"), "x.toml: topology.link.direct: rate_kbps is 8 to 10000000");
    assert!(link("uplink", "mtu = 500").contains("mtu is at least 1280"));
    let burst = "burst = { every_ms = 5, for_ms = 100 }";
    assert!(link("uplink", burst).contains("burst: every_ms and for_ms are at least 16"));
    assert!(link("sideways", "loss_percent = 1.0").contains("sideways"));
    assert!(link("uplink", "colour = 3").contains("colour"));
}

#[test]
fn a_hostile_member_is_told_what_to_do_and_to_whom() {
    let hostile = |rest: &str| format!("{LEAST}[[hostile]]\nnode = 1\n{rest}\n");
    Scenario::parse("x.toml", &hostile("do = [\"garbage\", \"flood\"]")).expect("a scenario");
    assert!(error(&hostile("do = [\"smile\"]")).contains("smile"));
    assert_eq!(error(&hostile("do = []")), "x.toml: a hostile member does something");
    let itself = error(&hostile("do = [\"flood\"]\ntowards = [1]"));
    assert_eq!(itself, "x.toml: a hostile member acts towards others");
}

#[test]
fn nats_that_cannot_stand_so_are_refused_by_their_number() {
    let nat =
        |says: &str| error(&LEAST.replace("[workload]", &format!("[[topology.nat]]\n{says}\n[workload]")));
    assert_eq!(nat("kind = \"symmetric\""), "x.toml: nat 1: either nodes or a weight");
    assert_eq!(nat("kind = \"symmetric\"\nnodes = [2]"), "x.toml: nat 1: there is no node 2: the last is 1");
    assert_eq!(nat("kind = \"symmetric\"\nnodes = [1, 1]"), "x.toml: nat 1: node 1 stands behind two");
    assert_eq!(nat("kind = \"symmetric\"\nweight = 0.0"), "x.toml: nat 1: a weight is more than 0");
    let shared = nat("kind = \"none\"\nnodes = [1]\nshared = true");
    assert_eq!(shared, "x.toml: nat 1: nothing stands there that could be shared");
    let short = nat("kind = \"full_cone\"\nnodes = [1]\nidle_s = 0.5");
    assert_eq!(short, "x.toml: nat 1: idle_s and life_s are at least 1");
    assert!(nat("kind = \"carrier\"\nnodes = [1]").contains("carrier"));
    let percent = LEAST.replace(
        "nodes = 2",
        "nodes = 2\ndirect_percent = 50\n[[topology.nat]]\nkind = \"full_cone\"\nnodes = [1]",
    );
    assert!(error(&percent).contains("leave direct_percent out"));
    let fault = format!("{LEAST}[[fault]]\nkind = \"nat_reboot\"\nwhen = {{ at_s = 1 }}\nwho = 1\n");
    assert_eq!(error(&fault), "x.toml: fault 1: no NAT stands there; name one in topology.nat");
}

#[test]
fn nodes_stand_behind_what_lists_them_and_draw_from_the_rest_by_weight() {
    let text = LEAST.replace("nodes = 2", "nodes = 400").replace(
        "[workload]",
        "[[topology.nat]]\nkind = \"cgnat\"\nnodes = [0]\n\
         [[topology.nat]]\nkind = \"symmetric\"\nweight = 3.0\nshared = true\n\
         [[topology.nat]]\nkind = \"none\"\nweight = 1.0\n[workload]",
    );
    let scenario = Scenario::parse("x.toml", &text).expect("a scenario");
    let (chains, shared) = super::standing(&scenario.topology.nats, 400, 7);
    assert_eq!(chains[0].len(), 2);
    let symmetric = shared.iter().filter(|group| **group == Some(1)).count();
    assert!((260..340).contains(&symmetric), "{symmetric} of 399 draw the one of weight 3");
    assert_eq!(chains.iter().filter(|chain| chain.is_empty()).count(), 399 - symmetric);
}
