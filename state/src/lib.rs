//! State of stream tasks: typed tables over sorted bytes, an uncommitted overlay with a savepoint a record, timers,
//! de-duplication, and RocksDB beneath (feature `rocksdb`).
//!
//! ```
//! use tillflow_state::{Memory, Store, Table};
//! let accounts = Table::<String, u64>::new("loyalty.accounts");
//! let mut store = Store::new(Box::new(Memory::default()));
//! accounts.put(&mut store, &"u1".to_owned(), &100).unwrap();
//! store.apply(&[]).unwrap();
//! store.savepoint();
//! accounts.put(&mut store, &"u1".to_owned(), &0).unwrap();
//! store.rollback();
//! assert_eq!(accounts.get(&store, &"u1".to_owned()).unwrap(), Some(100));
//! ```
//!
//! Reserved prefixes, 0 to 2^31 − 1: 1 the store's own rows, 2 and 3 timers, 4 and 5 de-duplication. Tables have the top
//! bit set.

mod backend;
mod cache;
mod error;
pub mod key;
mod overlay;
mod read_time;
#[cfg(feature = "rocksdb")]
mod rocks;
pub mod seen;
mod store;
mod table;
pub mod timers;

pub use backend::{Backend, Memory, Read, Size, Snapshots};
pub use error::{Result, StateError};
pub use key::Key;
#[cfg(feature = "rocksdb")]
pub use rocks::{Directory, Durability, FORMAT, RocksBackend, Shared};
pub use store::Store;
pub use table::{Table, prefix_of, rows_under};
