//! The pool's rules, each on its own. [`host::Host`] plays the driver: it answers what the pool asks for, at once or when
//! the test says so.

mod age;
mod attempts;
mod custody;
mod host;
mod links;
mod operator;
mod orders;
mod originated;
mod parts;
mod release;
mod reservation;
mod rest;
mod several_hosts;
mod shelf;
mod takeover;
mod verdicts;
