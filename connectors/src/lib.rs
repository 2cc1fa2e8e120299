//! What leaves the log: everything here follows the committed outputs and brings them to other systems, without ever
//! holding up the stream.

pub mod email;
pub mod redis;
