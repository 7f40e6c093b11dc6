//! Facts that need more than one crate, one module a subject. Most start real programs; none needs
//! another one to have run.

// What the programs do for people and scripts.
mod command_line;
mod demo;
mod first_five_minutes;
mod network;
// What happens to a message.
mod delivery;
mod idempotency;
mod same_bytes_on_every_path;
mod webrtc;
// What must not happen to one.
mod damaged_store;
mod full_disk;
mod history;
mod kill_loop;
mod recovery;
// Who belongs, and who does not.
mod canary;
mod invites;
mod membership;
// What others may do to us.
mod bad_input;
mod garbage;
mod lab;
mod tls;
// The bytes, the house, and what the papers say of them.
mod architecture;
mod python;
mod readme;
mod tidy;
mod vectors;
