//! tillflow-state
