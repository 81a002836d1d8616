//! A MIME walk by byte offset. Not for the hook.
