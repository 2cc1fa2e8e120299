//! Whole runs of the real engine on a simulated cluster, each decided by one seed: what arrives when, who crashes at
//! which step, which answers are lost, who wakes after being replaced. After the faults have stopped, everything must
//! drain, and what was committed must be what a naive model makes of the same input.
//!
//! ```no_run
//! use tillflow_tests::simulation::{run, Toy};
//! let report = run(17, &Toy, None).unwrap();
//! println!("{report}");
//! ```

mod chaos;
mod checks;
mod cluster;
mod processes;
mod scenario;
mod shop;
mod toy;

pub use cluster::run;
pub use scenario::{Arrival, Expected, Making, Report, Scenario};
pub use shop::Shop;
pub use toy::Toy;
