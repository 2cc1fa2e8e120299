//! A TCP proxy on the loopback address that fails as it is told to.
//!
//! In front of Kafka it knows which request a response belongs to, so that exactly the answer to a commit can be
//! lost while everything else goes through. In front of anything else it passes bytes, or doesn't.

use std::collections::{HashMap, VecDeque};
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;

/// Kafka's requests, by the number each has in the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "the names are the protocol's")]
#[repr(i16)]
pub enum Api {
    Produce = 0,
    Fetch = 1,
    ListOffsets = 2,
    Metadata = 3,
    OffsetCommit = 8,
    OffsetFetch = 9,
    FindCoordinator = 10,
    JoinGroup = 11,
    Heartbeat = 12,
    LeaveGroup = 13,
    SyncGroup = 14,
    InitProducerId = 22,
    AddPartitionsToTxn = 24,
    AddOffsetsToTxn = 25,
    EndTxn = 26,
    TxnOffsetCommit = 28,
}

/// Kafka's error codes for a commit that comes too late: INVALID_PRODUCER_EPOCH, INVALID_TXN_STATE,
/// INVALID_PRODUCER_ID_MAPPING, PRODUCER_FENCED.
const LATE: [i16; 4] = [47, 48, 49, 90];

/// What happens to a request instead of what should.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Fault {
    /// The broker does it; its answer is lost with the connection.
    LoseResponse,
    /// The broker does it; its answer never comes, though the connection stays.
    SwallowResponse,
    /// The connection ends before the broker has the request.
    LoseRequest,
}

/// A request that is to be held back.
#[derive(Debug, Default)]
enum Hold {
    #[default]
    None,
    /// The next of this kind that contains these bytes.
    For(i16, Vec<u8>),
    /// It is held.
    Held,
    /// The broker has it.
    Released,
    /// The broker's error code in the answer; 0 where it did what it was asked for.
    Answered(i16),
}

/// What a connection's responses are waited for with.
#[derive(Debug, Clone, Copy)]
enum Awaited {
    Fault(Fault),
    /// The answer to the request that was held, whose error code lies there.
    Late(usize),
}

/// A running proxy. Its connections end when it is dropped.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    target: SocketAddr,
    kafka: bool,
    /// Faults still to happen, by the request they are for, in order.
    faults: Mutex<HashMap<i16, VecDeque<Fault>>>,
    happened: Mutex<u32>,
    /// Bytes of the broker's answers.
    answered: AtomicU64,
    hold: Mutex<Hold>,
    /// Told when a held request may go on.
    released: Condvar,
    /// Both ends of each connection that is open, to cut it.
    connections: Mutex<Vec<Connection>>,
    down: AtomicBool,
    ended: AtomicBool,
}

type Connection = Arc<(TcpStream, TcpStream)>;

impl Proxy {
    /// In front of any TCP server on the loopback address.
    ///
    /// # Panics
    /// When no port is to be had.
    #[must_use]
    pub fn tcp(target_port: u16) -> Self {
        Self::start(0, target_port, false)
    }

    pub(crate) fn kafka(port: u16, target_port: u16) -> Self {
        Self::start(port, target_port, true)
    }

    fn start(port: u16, target_port: u16, kafka: bool) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", port)).expect("a port for the proxy");
        let address = listener.local_addr().expect("its address");
        let shared = Arc::new(Shared {
            target: SocketAddr::from(([127, 0, 0, 1], target_port)),
            kafka,
            faults: Mutex::default(),
            happened: Mutex::default(),
            answered: AtomicU64::new(0),
            hold: Mutex::default(),
            released: Condvar::new(),
            connections: Mutex::default(),
            down: AtomicBool::new(false),
            ended: AtomicBool::new(false),
        });
        let accepting = Arc::clone(&shared);
        thread::spawn(move || {
            for client in listener.incoming() {
                if accepting.ended.load(Ordering::SeqCst) {
                    break;
                }
                // While down, a connection is closed as soon as it is made.
                if let (Ok(client), false) = (client, accepting.down.load(Ordering::SeqCst)) {
                    let _ = accepting.connect(client);
                }
            }
        });
        Self { address, shared }
    }

    /// `127.0.0.1:PORT`, where clients connect.
    #[must_use]
    pub fn address(&self) -> String {
        self.address.to_string()
    }

    /// Its port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// The next `times` requests of this kind meet the fault, whichever client sends them.
    pub fn fail(&self, api: Api, fault: Fault, times: usize) {
        let mut faults = self.shared.faults.lock().unwrap();
        faults.entry(api as i16).or_default().extend(std::iter::repeat_n(fault, times));
    }

    /// How many faults have happened.
    #[must_use]
    pub fn happened(&self) -> u32 {
        *self.shared.happened.lock().unwrap()
    }

    /// How many bytes the broker has answered, to all clients together.
    #[must_use]
    pub fn answered_bytes(&self) -> u64 {
        self.shared.answered.load(Ordering::SeqCst)
    }

    /// Holds the next request of this kind that contains `id` back, with all that follows on its connection: the `EndTxn` of a
    /// transactional id, or the `JoinGroup` of a static member.
    pub fn hold(&self, api: Api, id: &str) {
        *self.shared.hold.lock().unwrap() = Hold::For(api as i16, id.into());
    }

    /// Whether a request is held back.
    #[must_use]
    pub fn holds(&self) -> bool {
        matches!(*self.shared.hold.lock().unwrap(), Hold::Held)
    }

    /// Lets the held request through, late.
    pub fn release(&self) {
        *self.shared.hold.lock().unwrap() = Hold::Released;
        self.shared.released.notify_all();
    }

    /// The broker's error code in its answer to the request that was late; 0 is none.
    #[must_use]
    pub fn answered(&self) -> Option<i16> {
        match *self.shared.hold.lock().unwrap() {
            Hold::Answered(code) => Some(code),
            _ => None,
        }
    }

    /// Whether the broker answered that the request that was held back came too late.
    #[must_use]
    pub fn refused_late(&self) -> bool {
        self.answered().is_some_and(|code| LATE.contains(&code))
    }

    /// Ends all connections there are; new ones are taken.
    pub fn cut(&self) {
        for connection in self.shared.connections.lock().unwrap().drain(..) {
            end(&connection);
        }
    }

    /// An outage: ends all connections, and every new one.
    pub fn go_down(&self) {
        self.shared.down.store(true, Ordering::SeqCst);
        self.cut();
    }

    /// The end of the outage.
    pub fn come_up(&self) {
        self.shared.down.store(false, Ordering::SeqCst);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::SeqCst);
        self.release();
        self.cut();
        // Wakes the thread that accepts.
        let _ = TcpStream::connect(self.address);
    }
}

/// Requests of one connection whose response is of interest, by correlation id.
type Pending = Arc<Mutex<HashMap<i32, Awaited>>>;

impl Shared {
    fn connect(self: &Arc<Self>, client: TcpStream) -> io::Result<()> {
        let server = TcpStream::connect(self.target)?;
        client.set_nodelay(true)?;
        server.set_nodelay(true)?;
        let connection = Arc::new((client, server));
        self.connections.lock().unwrap().push(Arc::clone(&connection));
        let pending = Pending::default();
        let (shared, ends, requests) = (Arc::clone(self), Arc::clone(&connection), Arc::clone(&pending));
        thread::spawn(move || {
            let (client, server) = &*ends;
            let _ = if shared.kafka { shared.pass_requests(client, server, &requests) } else { pass_bytes(client, server) };
            shared.close(&ends);
        });
        let shared = Arc::clone(self);
        thread::spawn(move || {
            let (client, server) = &*connection;
            let _ = if shared.kafka { shared.pass_responses(server, client, &pending) } else { pass_bytes(server, client) };
            shared.close(&connection);
        });
        Ok(())
    }

    /// Ends both ends and forgets them: a client that connects again and again must not use up the process's files.
    fn close(&self, connection: &Connection) {
        end(connection);
        self.connections.lock().unwrap().retain(|open| !Arc::ptr_eq(open, connection));
    }

    fn pass_requests(&self, mut client: &TcpStream, mut server: &TcpStream, pending: &Pending) -> io::Result<()> {
        while let Some(frame) = read_frame(&mut client)? {
            // Size, API key (16 bits), its version (16), correlation id (32).
            let (api, version) = (short(&frame, 4), short(&frame, 6));
            let awaited = match api.and_then(|api| self.next_fault(api)) {
                Some(Fault::LoseRequest) => {
                    self.count();
                    return Ok(());
                }
                Some(fault) => Some(Awaited::Fault(fault)),
                None => {
                    api.zip(version).filter(|(api, _)| self.hold(*api, &frame)).map(|(api, version)| Awaited::Late(error_at(api, version)))
                }
            };
            if let (Some(awaited), Some(correlation)) = (awaited, correlation(&frame, 8)) {
                pending.lock().unwrap().insert(correlation, awaited);
            }
            server.write_all(&frame)?;
        }
        Ok(())
    }

    fn pass_responses(&self, mut server: &TcpStream, mut client: &TcpStream, pending: &Pending) -> io::Result<()> {
        while let Some(frame) = read_frame(&mut server)? {
            self.answered.fetch_add(frame.len() as u64, Ordering::SeqCst);
            // Size, correlation id (32 bits).
            match correlation(&frame, 4).and_then(|correlation| pending.lock().unwrap().remove(&correlation)) {
                None => client.write_all(&frame)?,
                Some(Awaited::Late(at)) => {
                    let code = short(&frame, at).expect("an error code");
                    *self.hold.lock().unwrap() = Hold::Answered(code);
                    client.write_all(&frame)?;
                }
                Some(Awaited::Fault(Fault::SwallowResponse)) => self.count(),
                Some(Awaited::Fault(Fault::LoseResponse | Fault::LoseRequest)) => {
                    self.count();
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    fn next_fault(&self, api: i16) -> Option<Fault> {
        self.faults.lock().unwrap().get_mut(&api)?.pop_front()
    }

    /// Waits with the request that is to be held back until it is released; whether it was this one.
    fn hold(&self, api: i16, frame: &[u8]) -> bool {
        let mut hold = self.hold.lock().unwrap();
        if !matches!(&*hold, Hold::For(of, part) if *of == api && frame.windows(part.len()).any(|w| w == part)) {
            return false;
        }
        *hold = Hold::Held;
        while matches!(*hold, Hold::Held) && !self.ended.load(Ordering::SeqCst) {
            hold = self.released.wait(hold).unwrap();
        }
        true
    }

    fn count(&self) {
        *self.happened.lock().unwrap() += 1;
    }
}

fn short(frame: &[u8], at: usize) -> Option<i16> {
    Some(i16::from_be_bytes(frame.get(at..at + 2)?.try_into().ok()?))
}

/// Where the error code lies in the answer to `EndTxn` or `JoinGroup`: after size, correlation id and throttle time (32 bits each), and
/// where the version is a flexible one after the header's tags, of which there are none.
fn error_at(api: i16, version: i16) -> usize {
    let first_flexible = if api == Api::JoinGroup as i16 { 6 } else { 3 };
    if version < first_flexible { 12 } else { 13 }
}

fn correlation(frame: &[u8], at: usize) -> Option<i32> {
    Some(i32::from_be_bytes(frame.get(at..at + 4)?.try_into().ok()?))
}

/// One frame with its size in front, or none at the end of the stream.
fn read_frame(stream: &mut impl Read) -> io::Result<Option<Vec<u8>>> {
    let mut size = [0; 4];
    match stream.read_exact(&mut size) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        other => other?,
    }
    let mut frame = size.to_vec();
    frame.resize(4 + u32::from_be_bytes(size) as usize, 0);
    stream.read_exact(&mut frame[4..])?;
    Ok(Some(frame))
}

fn pass_bytes(mut from: &TcpStream, mut to: &TcpStream) -> io::Result<()> {
    io::copy(&mut from, &mut to).map(|_| ())
}

fn end(connection: &Connection) {
    let _ = connection.0.shutdown(Shutdown::Both);
    let _ = connection.1.shutdown(Shutdown::Both);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::until;
    use std::time::Duration;

    #[test]
    fn connections_that_end_are_forgotten() {
        let server = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let proxy = Proxy::tcp(server.local_addr().unwrap().port());
        let open = || proxy.shared.connections.lock().unwrap().len();
        for _ in 0..20 {
            let client = TcpStream::connect(proxy.address()).unwrap();
            let (mut there, _) = server.accept().unwrap();
            there.write_all(b"x").unwrap();
            let mut heard = [0];
            (&client).read_exact(&mut heard).unwrap();
            assert_eq!(heard, *b"x");
            assert!(open() > 0);
        }
        until("all are forgotten", Duration::from_secs(30), || open() == 0);
    }
}
