//! The gateway over a real socket, before a shop in memory.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

mod console;
mod ingest;
mod queries;
mod sockets;
mod support;
