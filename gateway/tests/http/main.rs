//! The gateway over a real socket, before a shop in memory.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

mod commands;
mod console;
mod forward;
mod ingest;
mod openapi;
mod pricing;
mod queries;
mod registry;
mod segment;
mod sockets;
mod support;
