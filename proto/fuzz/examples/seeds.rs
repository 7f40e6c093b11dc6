//! Writes the seed corpora: `cargo run --example seeds`, in `proto/fuzz`.

use std::fs;
use std::path::Path;

fn main() -> std::io::Result<()> {
    for (target, seeds) in peerloom_proto_fuzz::seeds() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
        fs::create_dir_all(&folder)?;
        for (number, seed) in seeds.iter().enumerate() {
            fs::write(folder.join(format!("seed-{number:02}")), seed)?;
        }
    }
    Ok(())
}
