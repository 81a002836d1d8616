//! How the protocol travels: QUIC, identities, join tokens, streams, back-off.
