//! A real Redis.

use std::path::Path;
use std::time::Duration;

use redis::{Client, Connection};

use crate::{Process, Scratch, free_port, scratch, until};

/// A Redis server of its own on the loopback address, with nothing kept on disk. Killed when dropped.
#[derive(Debug)]
pub struct Redis {
    port: u16,
    process: Process,
    files: Scratch,
}

impl Redis {
    /// Starts one and waits until it answers.
    ///
    /// # Panics
    /// When it can't be started.
    #[must_use]
    pub fn start() -> Self {
        let port = free_port();
        let files = scratch("redis");
        let process = launch(port, &files);
        let redis = Self { port, process, files };
        redis.wait_until_up();
        redis
    }

    /// `redis://127.0.0.1:PORT`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Its port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// A new connection.
    ///
    /// # Panics
    /// When it is down.
    #[must_use]
    pub fn connect(&self) -> Connection {
        self.try_connect().expect("Redis answers")
    }

    /// It dies, with all that it held.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// It is back on the same port, empty.
    pub fn start_again(&mut self) {
        self.process.kill();
        self.process = launch(self.port, &self.files);
        self.wait_until_up();
    }

    fn try_connect(&self) -> redis::RedisResult<Connection> {
        let mut connection = Client::open(self.url())?.get_connection_with_timeout(Duration::from_secs(2))?;
        redis::cmd("PING").query::<String>(&mut connection)?;
        Ok(connection)
    }

    fn wait_until_up(&self) {
        until("Redis answers", Duration::from_secs(20), || self.try_connect().is_ok());
    }
}

fn launch(port: u16, files: &Scratch) -> Process {
    Process::spawn("redis", files.path(), Path::new("redis-server"), |command| {
        command.args(["--bind", "127.0.0.1", "--port", &port.to_string()]);
        command.args(["--save", "", "--appendonly", "no", "--loglevel", "warning", "--dir"]).arg(files.path());
    })
}
