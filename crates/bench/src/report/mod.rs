//! Records as a page that a person reads, with plots.
//!
//! Words that explain a suite lie in `about/`, one file a suite; everything else on the page comes from the
//! records.

mod advice;
mod page;
mod plot;

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use shapeyard_core::plan::Prices;

pub(crate) use self::advice::ARRIVAL;
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
    let is_kept = args.out == Path::new(KEPT);
    let files = files(&args.records, args.prices.as_deref(), is_kept)?;
    if args.check {
        return check(&args.out, &files);
    }
    write(&args.out, &files)?;
    if args.write && is_kept {
        remove_stale_plots(&args.out, &files)?;
    }
    Ok(true)
}

/// Only `--write` does: it owns the folder that the repository keeps, and no other.
fn remove_stale_plots(folder: &Path, files: &[File]) -> Result<()> {
    for path in stale_plots(folder, files)? {
        fs::remove_file(&path).with_context(|| format!("`{}` stays", path.display()))?;
        println!("{}: removed", path.display());
    }
    Ok(())
}

/// Plots in the folder that the records do not have.
fn stale_plots(folder: &Path, files: &[File]) -> Result<Vec<PathBuf>> {
    let plots = folder.join(page::PLOTS);
    let entries = match fs::read_dir(&plots) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.with_context(|| format!("`{}` cannot be read", plots.display()))?,
    };
    let mut stale = Vec::new();
    for entry in entries {
        let path = entry?.path();
        let is_plot = path.extension().is_some_and(|it| it == "svg");
        if is_plot && files.iter().all(|file| folder.join(&file.path) != path) {
            stale.push(path);
        }
    }
    Ok(stale)
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

/// The page, which is the first, and its plots. `is_kept` is for the page that the repository keeps.
///
/// # Errors
///
/// What keeps records or prices from being read.
pub fn files(records: &[PathBuf], prices: Option<&Path>, is_kept: bool) -> Result<Vec<File>> {
    let mut all = Vec::new();
    for path in records {
        all.extend(record::read(path)?);
    }
    let prices = prices.map(|path| -> Result<Prices> {
        let text = fs::read_to_string(path)
            .with_context(|| format!("`{}` cannot be read", path.display()))?;
        serde_json::from_str(&text).with_context(|| format!("`{}` holds no prices", path.display()))
    });
    Ok(page::write(all, prices.transpose()?, is_kept))
}

fn check(folder: &Path, files: &[File]) -> Result<bool> {
    let differs = |file: &&File| {
        fs::read_to_string(folder.join(&file.path)).map_or(true, |text| text != file.text)
    };
    let differing = files.iter().filter(differs).map(|it| it.path.display().to_string());
    let left = stale_plots(folder, files)?.into_iter().map(|it| it.display().to_string());
    let stale: Vec<String> = differing.chain(left).collect();
    if stale.is_empty() {
        println!("{} files are what the records say", files.len());
        return Ok(true);
    }
    let stale = stale.join(", ");
    eprintln!("not what the records say: {stale}; run `cargo xtask bench report --write`");
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plots_that_no_record_has_are_found_and_removed() {
        let folder = tempfile::tempdir().unwrap();
        let plot =
            |name: &str| File { path: Path::new(page::PLOTS).join(name), text: name.to_owned() };
        let (kept, dropped) = (plot("kept.svg"), plot("dropped.svg"));
        assert!(stale_plots(folder.path(), &[]).unwrap().is_empty());
        write(folder.path(), &[kept.clone(), dropped.clone(), plot("a person's.txt")]).unwrap();
        let files = [kept.clone()];
        assert!(!check(folder.path(), &files).unwrap());
        remove_stale_plots(folder.path(), &files).unwrap();
        assert!(check(folder.path(), &files).unwrap());
        let is_there = |file: &File| folder.path().join(&file.path).exists();
        assert!(is_there(&kept) && !is_there(&dropped) && is_there(&plot("a person's.txt")));
    }
}
