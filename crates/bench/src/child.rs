//! A process of this program that answers line by line.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child as Process, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use serde::de::DeserializeOwned;

/// A process that waits for orders; ended with the value.
#[derive(Debug)]
pub struct Child {
    process: Process,
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Child {
    /// Starts it.
    ///
    /// # Errors
    ///
    /// Where the system does not start it.
    pub fn start(mut command: Command) -> Result<Self> {
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = command.spawn().context("a worker could not be started")?;
        let orders = process.stdin.take().context("a worker takes no orders")?;
        let answers = process.stdout.take().context("a worker gives no answers")?;
        Ok(Self { process, orders, answers: BufReader::new(answers) })
    }

    /// Gives an order, one line.
    ///
    /// # Errors
    ///
    /// Where it has ended.
    pub fn order(&mut self, line: &str) -> Result<()> {
        self.orders.write_all(format!("{line}\n").as_bytes()).context("a worker has ended")
    }

    /// Waits for its next line, which is JSON.
    ///
    /// # Errors
    ///
    /// Where it has ended, or says something else.
    pub fn answer<T: DeserializeOwned>(&mut self) -> Result<T> {
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        ensure!(!line.is_empty(), "a worker ended without an answer");
        serde_json::from_str(&line).with_context(|| format!("a worker says `{}`", line.trim_end()))
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
