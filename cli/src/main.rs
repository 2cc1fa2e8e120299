//! tillflow
fn main() {}
