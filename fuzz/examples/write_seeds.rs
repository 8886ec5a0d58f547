//! Writes each target's seeds where libFuzzer looks for them: `cargo run -p sesemi-fuzz --example write_seeds -- fuzz/corpus`

#![allow(clippy::expect_used, reason = "a chore for developers")]

use std::path::PathBuf;

fn main() -> std::io::Result<()> {
    let folder = std::env::args_os().nth(1).expect("the corpus' folder");
    for target in sesemi_fuzz::TARGETS {
        let folder = PathBuf::from(&folder).join(target.name);
        std::fs::create_dir_all(&folder)?;
        let seeds = (target.seeds)();
        for (number, seed) in seeds.iter().enumerate() {
            std::fs::write(folder.join(format!("seed-{number}")), seed)?;
        }
        println!("{}: {} seeds", target.name, seeds.len());
    }
    Ok(())
}
