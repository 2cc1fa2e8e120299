//! RocksDB beneath a store.
