//! Evidence, kept where somebody can look at it after the lab is gone.

use std::fs;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Context;

use super::enter::fed;
use super::internet::Internet;
use super::namespace::Namespace;

/// Writes the capture, the timeline, the tables of every router and the daemons' logs into a new
/// directory of the system's temporary files, and says which.
pub(super) fn keep(internet: &Internet, what: &str) -> anyhow::Result<String> {
    let at = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
    let dir = std::env::temp_dir().join(format!("peerloom-lab-{what}-{at}"));
    fs::create_dir(&dir).with_context(|| format!("failed to make {}", dir.display()))?;
    internet.wire.sky().capture.write(&dir.join("wire.pcapng"))?;
    internet.timeline.write(&dir.join("timeline.jsonl"))?;
    copy(&internet.coordinator.log(), &dir.join("coordinator.log"))?;
    for host in &internet.hosts {
        copy(&host.node.home.join("log/peerloom.log"), &dir.join(format!("{}.log", host.handle)))?;
        for router in &host.site.routers {
            fs::write(dir.join(format!("{router}.tables")), tables(router))?;
        }
    }
    Ok(dir.display().to_string())
}

/// A daemon that has not said anything yet has no log.
fn copy(from: &Path, to: &Path) -> anyhow::Result<()> {
    if from.exists() {
        fs::copy(from, to).with_context(|| format!("failed to copy {}", from.display()))?;
    }
    Ok(())
}

/// The rules with their maps, and the connections if `conntrack` is there to list them.
fn tables(router: &Namespace) -> String {
    let asked: [(&str, &[&str]); 2] = [("nft", &["list", "ruleset"]), ("conntrack", &["-L"])];
    let answers = asked.map(|(program, arguments)| {
        let said = router.within(|| fed(program, arguments, ""));
        format!("# {program}\n{}\n", said.unwrap_or_else(|error| format!("{error:#}")))
    });
    answers.concat()
}
