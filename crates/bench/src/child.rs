//! A process of this program that answers line by line.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::process::{Child as Process, ChildStdin, ChildStdout, Command, Stdio};
use std::thread::{self, JoinHandle};

use anyhow::{Context as _, Result, anyhow, ensure};
use serde::de::DeserializeOwned;

/// A process that waits for orders; ended with the value.
#[derive(Debug)]
pub struct Child {
    process: Process,
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
    /// Reads what it complains of, so that it never waits for a reader; gives the last line.
    complaints: Option<JoinHandle<String>>,
}

/// The last line that a program said before it failed.
pub(crate) fn last_words(said: &[u8]) -> String {
    let said = String::from_utf8_lossy(said);
    // What Rust adds to a panic is no reason.
    let is_reason = |line: &&str| !line.is_empty() && !line.starts_with("note: ");
    let last = said.lines().rev().map(str::trim).find(is_reason);
    last.unwrap_or("it said nothing").trim_start_matches("error: ").to_owned()
}

impl Child {
    /// Starts it.
    ///
    /// # Errors
    ///
    /// Where the system does not start it.
    pub fn start(mut command: Command) -> Result<Self> {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut process = command.spawn().context("a worker could not be started")?;
        let orders = process.stdin.take().context("a worker takes no orders")?;
        let answers = process.stdout.take().context("a worker gives no answers")?;
        let mut said = process.stderr.take().context("a worker cannot complain")?;
        let complaints = thread::spawn(move || {
            let mut all = Vec::new();
            // What was read before an error is what there is to tell.
            let _ = said.read_to_end(&mut all);
            last_words(&all)
        });
        Ok(Self { process, orders, answers: BufReader::new(answers), complaints: Some(complaints) })
    }

    /// Gives an order, one line.
    ///
    /// # Errors
    ///
    /// Where it has ended.
    pub fn order(&mut self, line: &str) -> Result<()> {
        let given = self.orders.write_all(format!("{line}\n").as_bytes());
        given.map_err(|_| anyhow!(self.why_it_ended()))
    }

    /// Waits for its next line, which is JSON.
    ///
    /// # Errors
    ///
    /// Where it has ended, or says something else.
    pub fn answer<T: DeserializeOwned>(&mut self) -> Result<T> {
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        ensure!(!line.is_empty(), "{}", self.why_it_ended());
        serde_json::from_str(&line).with_context(|| format!("a worker says `{}`", line.trim_end()))
    }

    fn why_it_ended(&mut self) -> String {
        let status = match self.process.wait() {
            Ok(status) => format!("it ended with {status}"),
            Err(error) => format!("how it ended is not known ({error})"),
        };
        let complaint = self.complaints.take().and_then(|it| it.join().ok());
        format!("{status}: {}", complaint.unwrap_or_default())
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_reason_is_told() {
        let said = b"warming\nerror: no such model\nnote: run with `RUST_BACKTRACE=1`\n\n";
        assert_eq!(last_words(said), "no such model");
        assert_eq!(last_words(b"\n"), "it said nothing");
    }

    #[cfg(unix)]
    #[test]
    fn a_worker_that_ended_says_why() {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", "echo 1; read line; echo 'error: no memory' >&2; exit 3"]);
        let mut child = Child::start(command).unwrap();
        assert_eq!(child.answer::<u8>().unwrap(), 1);
        child.order("go on").unwrap();
        let error = child.answer::<u8>().unwrap_err().to_string();
        assert!(error.contains("exit status: 3: no memory"), "{error}");
    }
}
