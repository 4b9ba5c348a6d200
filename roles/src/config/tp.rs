//! The configuration of a template provider.

use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use adit_engine::EngineLimits;
use adit_proto::distribution::server;

use super::{Authority, ConfigError, Lines, Problem, Program, Settings, check, load, read};

/// The longest payload of a client: a SubmitSolution with the longest coinbase that a message can carry, and a margin.
const FRAME_PAYLOAD_LEN_MAX: u32 = 72 << 10;
/// Connections beyond the clients, so that strangers who have not shaken hands yet take no client's place.
const STRANGERS_MAX: u32 = 256;

/// A validated configuration.
pub struct TpConfig {
    /// The settings; paths are absolute or relative to the working directory.
    pub settings: Settings,
    /// Which keys the file sets.
    pub lines: Lines,
    /// How the provider proves who it is.
    pub authority: Authority,
    /// What serves clients.
    pub cpu: usize,
    /// What is allowed but worth a thought.
    pub warnings: Vec<String>,
}

impl TpConfig {
    /// Reads and checks a file, its key files and whether this machine can do what it asks.
    ///
    /// # Errors
    /// Every mistake that was found.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        load(path, Self::parse)
    }

    /// Checks the text of a file with these mode bits that lies in `directory`.
    ///
    /// # Errors
    /// Every mistake that was found.
    pub fn parse(text: &str, directory: &Path, mode: u32) -> Result<Self, Vec<Problem>> {
        check::check_tp(read(text, Program::Tp), directory, mode)
    }

    /// Checks settings that no file gave. Paths stay as they are.
    ///
    /// # Errors
    /// Every mistake that was found.
    pub fn from_settings(settings: Settings, authority: Authority) -> Result<Self, Vec<Problem>> {
        check::check_tp_settings(settings, authority)
    }

    /// The engine's bounds.
    pub fn engine_limits(&self) -> EngineLimits {
        let clients = &self.settings.clients;
        EngineLimits {
            connections_max: clients.clients_max + STRANGERS_MAX,
            connections_per_address_max: clients.clients_per_address_max,
            handshakes_per_second_max: clients.handshakes_per_second_max,
            handshake_timeout: Duration::from_secs_f64(clients.handshake_timeout_s),
            send_buffer_bytes_max: clients.send_buffer_bytes_max,
            shard_send_buffer_bytes_max: clients.send_buffer_bytes_in_all_max,
            frame_payload_len_max: FRAME_PAYLOAD_LEN_MAX,
            close_timeout: Duration::from_secs_f64(clients.close_timeout_s),
            // Its clients are few.
            gather_max: Duration::ZERO,
            delivery_timeout: Duration::from_secs_f64(clients.delivery_timeout_s),
            log_lines_per_second_max: clients.log_lines_per_second_max,
        }
    }

    /// The server's settings. Template ids begin above those of earlier runs, unless the clock was set back by more
    /// than the time in between.
    pub fn server(&self) -> server::ServerConfig {
        let clients = &self.settings.clients;
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        server::ServerConfig {
            first_template_id: u64::try_from(since.as_micros()).unwrap_or(1 << 62),
            limits: server::Limits {
                clients_max: clients.clients_max as usize,
                classes_max: clients.classes_max,
                classes_begun_max: clients.classes_begun_max,
                class_linger: Duration::from_secs_f64(clients.class_linger_s),
                max_additional_sigops_max: clients.max_additional_sigops_max,
                max_additional_size_max: clients.max_additional_size_max,
                stale_retention: Duration::from_secs_f64(clients.stale_retention_s),
                requests_max: clients.requests_max,
                request_timeout: Duration::from_secs_f64(clients.request_timeout_s),
                errors_max: clients.errors_max,
                errors_window: Duration::from_secs_f64(clients.errors_window_s),
                setup_timeout: Duration::from_secs_f64(clients.setup_timeout_s),
                constraints_timeout: Duration::from_secs_f64(clients.constraints_timeout_s),
                ..server::Limits::default()
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nodes::CLASSES_MAX;

    #[test]
    fn classes_are_as_many_as_a_source_serves_at_most() {
        let field = crate::config::field("clients", "classes_max").unwrap();
        let max = i64::try_from(CLASSES_MAX).unwrap();
        assert!(field.kind.check(&super::super::Value::Integer(max)).is_ok());
        assert!(field.kind.check(&super::super::Value::Integer(max + 1)).is_err());
    }

    #[test]
    fn the_longest_solution_fits_a_frame() {
        let solution = adit_codec::message::SubmitSolution {
            template_id: u64::MAX,
            version: u32::MAX,
            header_timestamp: u32::MAX,
            header_nonce: u32::MAX,
            coinbase_tx: &[0; 65_535],
        };
        assert!(adit_codec::frame_len(&solution) <= FRAME_PAYLOAD_LEN_MAX as usize);
    }
}
