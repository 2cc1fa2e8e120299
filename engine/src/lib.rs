//! tillflow-engine
