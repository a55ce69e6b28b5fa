//! Records as a page that a person reads, with plots.
//!
//! Words that explain a suite lie in `about/`, one file a suite; everything else on the page comes from the
//! records.

mod advice;
mod page;
mod plot;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use shapeyard_core::plan::Prices;

use crate::record;
use crate::suite::BadArgument;

/// What to write.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  cargo xtask bench report target/bench/records.jsonl --out target/bench/report
  cargo xtask bench report --write               docs/performance.md from docs/records
  cargo xtask bench report --check               whether it is what the records say")]
pub struct Args {
    /// Records: files, or folders of `.jsonl` files.
    #[arg(value_name = "RECORDS", default_value = "docs/records")]
    records: Vec<PathBuf>,
    /// A folder for `performance.md` and its plots.
    #[arg(long, value_name = "DIR", default_value = "docs")]
    out: PathBuf,
    /// Measured prices of a device, JSON as `shapeyard plan --prices` takes them, for the recommendation.
    #[arg(long, value_name = "FILE")]
    prices: Option<PathBuf>,
    /// Write the page where --out is left at `docs`, which the repository keeps.
    #[arg(long, conflicts_with = "check")]
    write: bool,
    /// Write nothing, and fail where a file is not what the records say.
    #[arg(long)]
    check: bool,
}

/// The folder that a repository keeps its page in.
const KEPT: &str = "docs";

/// A file of a report, by its place below the report's folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// Its place.
    pub path: PathBuf,
    /// What it holds.
    pub text: String,
}

/// Writes the page and its plots, or checks them; false where they are not what the records say.
///
/// # Errors
///
/// What keeps records from being read or files from being written.
pub fn run(args: &Args) -> Result<bool> {
    ensure!(
        args.write || args.check || args.out != Path::new(KEPT),
        BadArgument::new(format!(
            "say --write to replace the page in `{KEPT}`, or name another folder with --out"
        ))
    );
    let files = files(&args.records, args.prices.as_deref())?;
    if args.check {
        return Ok(check(&args.out, &files));
    }
    write(&args.out, &files)?;
    Ok(true)
}

/// Writes files below a folder, and names them.
///
/// # Errors
///
/// What keeps one from being written.
pub fn write(folder: &Path, files: &[File]) -> Result<()> {
    for file in files {
        let path = folder.join(&file.path);
        let folder = path.parent().context("a file lies in a folder")?;
        fs::create_dir_all(folder)
            .and_then(|()| fs::write(&path, &file.text))
            .with_context(|| format!("`{}` cannot be written", path.display()))?;
        println!("{}", path.display());
    }
    Ok(())
}

/// The page, which is the first, and its plots.
///
/// # Errors
///
/// What keeps records or prices from being read.
pub fn files(records: &[PathBuf], prices: Option<&Path>) -> Result<Vec<File>> {
    let mut all = Vec::new();
    for path in records {
        all.extend(record::read(path)?);
    }
    let prices = prices.map(|path| -> Result<Prices> {
        let text = fs::read_to_string(path)
            .with_context(|| format!("`{}` cannot be read", path.display()))?;
        serde_json::from_str(&text).with_context(|| format!("`{}` holds no prices", path.display()))
    });
    Ok(page::write(&all, prices.transpose()?))
}

fn check(folder: &Path, files: &[File]) -> bool {
    let differs = |file: &&File| {
        fs::read_to_string(folder.join(&file.path)).map_or(true, |text| text != file.text)
    };
    let stale: Vec<String> =
        files.iter().filter(differs).map(|it| it.path.display().to_string()).collect();
    if stale.is_empty() {
        println!("{} files are what the records say", files.len());
        return true;
    }
    let stale = stale.join(", ");
    eprintln!("not what the records say: {stale}; run `cargo xtask bench report --write`");
    false
}
