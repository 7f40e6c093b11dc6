//! Facts that need more than one crate, one module a subject. Most start real programs; none needs
//! another one to have run.

// What the programs do for people and scripts.
mod first_five_minutes;
mod command_line;
mod demo;
// What happens to a message.
mod delivery;
mod idempotency;
mod same_bytes_on_every_path;
// What must not happen to one.
mod kill_loop;
mod full_disk;
mod damaged_store;
// Who belongs, and who does not.
mod invites;
mod membership;
mod canary;
// What others may do to us.
mod bad_input;
mod garbage;
// The bytes, the house, and what the papers say of them.
mod vectors;
mod python;
mod architecture;
mod tidy;
mod readme;
