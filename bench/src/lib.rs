//! tillflow-bench
