//! The bound on open connections, through the whole program.

use std::{
    io::{ErrorKind, Read, Write},
    net::TcpStream,
    time::Duration,
};
use tillflow_tests::{Tillflow, free_port};

const LIMIT: Duration = Duration::from_secs(60);
/// Connections the program may have open at once.
const OPEN: usize = 4;

/// One connection, used as a browser does: again and again.
struct Connection(TcpStream);

impl Connection {
    fn to(url: &str) -> Self {
        let stream = TcpStream::connect(url.trim_start_matches("http://")).expect("a connection, in the kernel's queue at least");
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        Self(stream)
    }

    fn ask(&mut self) {
        self.0.write_all(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n").unwrap();
    }

    fn is_answered(&mut self) -> bool {
        let mut answer = [0; 4_096];
        match self.0.read(&mut answer) {
            Ok(read) => {
                let answer = String::from_utf8_lossy(&answer[..read]);
                assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
                true
            }
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => false,
            Err(e) => panic!("{e}"),
        }
    }
}

#[test]
fn one_connection_above_the_bound_waits_until_another_ends_and_health_has_a_place_of_its_own() {
    let health = format!("127.0.0.1:{}", free_port());
    let mut shop = Tillflow::run().set("limits.connections", OPEN).set("health_listen", &health).within(LIMIT).spawn();
    // One of them is the client's that asked whether the program is up.
    shop.wait_until_ready();
    let mut open: Vec<_> = (1..OPEN).map(|_| Connection::to(shop.url())).collect();
    for connection in &mut open {
        connection.ask();
        assert!(connection.is_answered());
    }
    let mut above = Connection::to(shop.url());
    above.ask();
    above.0.set_nonblocking(true).unwrap();
    // Those that have a place are served as before, hundreds of times; so it is not for want of time that it waits.
    for _ in 0..100 {
        for connection in &mut open {
            connection.ask();
            assert!(connection.is_answered());
        }
    }
    assert!(!above.is_answered(), "it was served beside {OPEN} others");
    let mut doctor = Connection::to(&health);
    doctor.ask();
    assert!(doctor.is_answered());

    drop(open.pop());
    above.0.set_nonblocking(false).unwrap();
    assert!(above.is_answered(), "a place was free");
    // All that are open have nothing to ask; the program ends all the same.
    assert!(shop.stop().success(), "{}", shop.stderr());
}
