//! Modules that workers run on messages.
