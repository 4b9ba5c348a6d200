//! The table of messages (spec 3.6, 5.3, 6.4, 7, 8 and extension 0x0001): the only place where a message is described.
//!
//! A row is: extension, number, name, protocol (`All` where every protocol has it), who it is sent to (`Server`,
//! `Client` or `Either`), whether it is of the `connection` or of a `channel` (the `channel_msg` bit), the struct, and
//! its fields in wire order, typed in the specification's notation. `ERROR_CODE` is a STR0_255 without control
//! characters.

use super::{Decode, Decoded, Direction, Encode, Field, Protocol, Row, at_most_a_frame, encode_frame};
use crate::error::{DecodeError, DecodeErrorKind, EncodeError, EncodeErrorKind};
use crate::wire::{Wire, Writer};

messages! {
    /// Opens a connection for one protocol; always the first message (spec 3.6.1).
    0x0000 0x00 "SetupConnection" All Server connection
    SetupConnection<'a> {
        /// The protocol; [`Protocol::from_wire`] names it.
        protocol: U8,
        /// Lowest protocol version that the client speaks.
        min_version: U16,
        /// Highest protocol version that the client speaks.
        max_version: U16,
        /// Optional features, per protocol; see [`flags`](super::flags).
        flags: U32,
        /// Host name or address that the client connects to, ASCII.
        endpoint_host: STR0_255,
        /// Port that the client connects to.
        endpoint_port: U16,
        /// Maker of the device.
        vendor: STR0_255,
        /// Hardware of the device.
        hardware_version: STR0_255,
        /// Firmware of the device.
        firmware: STR0_255,
        /// Identifier of the device by its maker's rules; empty without telemetry.
        device_id: STR0_255,
    }

    /// Accepts a connection (spec 3.6.2).
    0x0000 0x01 "SetupConnection.Success" All Client connection
    SetupConnectionSuccess {
        /// The version that the connection uses from now on.
        used_version: U16,
        /// Optional features of the server, per protocol; see [`flags`](super::flags).
        flags: U32,
    }

    /// Refuses a connection, which is then closed (spec 3.6.3).
    0x0000 0x02 "SetupConnection.Error" All Client connection
    SetupConnectionError<'a> {
        /// Every flag that the server does not support; 0 where flags are not the reason.
        flags: U32,
        /// Reason.
        error_code: ERROR_CODE,
    }

    /// The far end of a channel changed: extension state starts anew (spec 3.6.4).
    0x0000 0x03 "ChannelEndpointChanged" All Client channel
    ChannelEndpointChanged {
        /// The channel.
        channel_id: U32,
    }

    /// Asks the client to connect elsewhere (spec 3.6.5).
    0x0000 0x04 "Reconnect" All Client connection
    Reconnect<'a> {
        /// Host; empty for the present one.
        new_host: STR0_255,
        /// Port; 0 for the present one.
        new_port: U16,
    }

    /// Asks for a standard channel (spec 5.3.2).
    0x0000 0x10 "OpenStandardMiningChannel" Mining Server connection
    OpenStandardMiningChannel<'a> {
        /// Pairs the answer with this request.
        request_id: U32,
        /// Who mines, by the server's rules.
        user_identity: STR0_255,
        /// Expected hash rate in hashes per second.
        nominal_hash_rate: F32,
        /// The easiest target that the device can work with.
        max_target: U256,
    }

    /// Opens a standard channel (spec 5.3.3).
    0x0000 0x11 "OpenStandardMiningChannel.Success" Mining Client connection
    OpenStandardMiningChannelSuccess<'a> {
        /// From the request.
        request_id: U32,
        /// The new channel.
        channel_id: U32,
        /// The channel's first target.
        target: U256,
        /// The channel's extranonce, used where an extended job serves a group.
        extranonce_prefix: B0_32,
        /// The group that the channel belongs to.
        group_channel_id: U32,
    }

    /// Refuses a channel of either type (spec 5.3.6).
    0x0000 0x12 "OpenMiningChannel.Error" Mining Client connection
    OpenMiningChannelError<'a> {
        /// From the request.
        request_id: U32,
        /// Reason.
        error_code: ERROR_CODE,
    }

    /// Asks for an extended channel (spec 5.3.4).
    0x0000 0x13 "OpenExtendedMiningChannel" Mining Server connection
    OpenExtendedMiningChannel<'a> {
        /// Pairs the answer with this request.
        request_id: U32,
        /// Who mines, by the server's rules.
        user_identity: STR0_255,
        /// Expected hash rate in hashes per second.
        nominal_hash_rate: F32,
        /// The easiest target that the client can work with.
        max_target: U256,
        /// Bytes of extranonce that the client must be able to roll.
        min_extranonce_size: U16,
    }

    /// Opens an extended channel (spec 5.3.5).
    0x0000 0x14 "OpenExtendedMiningChannel.Success" Mining Client connection
    OpenExtendedMiningChannelSuccess<'a> {
        /// From the request.
        request_id: U32,
        /// The new channel.
        channel_id: U32,
        /// The channel's first target.
        target: U256,
        /// Bytes of extranonce that the client rolls.
        extranonce_size: U16,
        /// Bytes that go before the rolled ones.
        extranonce_prefix: B0_32,
        /// The group that the channel belongs to.
        group_channel_id: U32,
    }

    /// A job with a fixed merkle root, for a standard channel (spec 5.3.15).
    0x0000 0x15 "NewMiningJob" Mining Client channel
    NewMiningJob<'a> {
        /// A standard channel.
        channel_id: U32,
        /// The job.
        job_id: U32,
        /// Smallest ntime; empty for a future job.
        min_ntime: OPTION[U32],
        /// Block header version; its rollable bits are free.
        version: U32,
        /// Block header field.
        merkle_root: U256,
    }

    /// Changes a channel's hash rate and wished target (spec 5.3.7).
    0x0000 0x16 "UpdateChannel" Mining Server channel
    UpdateChannel<'a> {
        /// The channel.
        channel_id: U32,
        /// Expected hash rate in hashes per second; 0 while nobody mines.
        nominal_hash_rate: F32,
        /// The easiest target that the client wants.
        maximum_target: U256,
    }

    /// Refuses an [`UpdateChannel`] (spec 5.3.8).
    0x0000 0x17 "UpdateChannel.Error" Mining Client channel
    UpdateChannelError<'a> {
        /// The channel.
        channel_id: U32,
        /// Reason.
        error_code: ERROR_CODE,
    }

    /// Ends a channel, or all channels of a group (spec 5.3.9).
    0x0000 0x18 "CloseChannel" Mining Either channel
    CloseChannel<'a> {
        /// The channel or group.
        channel_id: U32,
        /// Reason; by the rules of error codes.
        reason_code: ERROR_CODE,
    }

    /// Changes a channel's prefix for all jobs sent afterwards (spec 5.3.10).
    0x0000 0x19 "SetExtranoncePrefix" Mining Client channel
    SetExtranoncePrefix<'a> {
        /// A standard or extended channel, no group.
        channel_id: U32,
        /// The new prefix.
        extranonce_prefix: B0_32,
    }

    /// A share of a standard channel (spec 5.3.11).
    0x0000 0x1a "SubmitSharesStandard" Mining Server channel
    SubmitSharesStandard {
        /// The channel.
        channel_id: U32,
        /// Numbers the shares of a channel.
        sequence_number: U32,
        /// The job.
        job_id: U32,
        /// Block header field.
        nonce: U32,
        /// Block header field.
        ntime: U32,
        /// Block header field, whole.
        version: U32,
    }

    /// A share of an extended channel (spec 5.3.12).
    0x0000 0x1b "SubmitSharesExtended" Mining Server channel
    SubmitSharesExtended<'a> {
        /// The channel.
        channel_id: U32,
        /// Numbers the shares of a channel.
        sequence_number: U32,
        /// The job.
        job_id: U32,
        /// Block header field.
        nonce: U32,
        /// Block header field.
        ntime: U32,
        /// Block header field, whole.
        version: U32,
        /// The rolled bytes, exactly as many as the channel has.
        extranonce: B0_32,
    }

    /// Accepts shares, several at a time (spec 5.3.13).
    0x0000 0x1c "SubmitShares.Success" Mining Client channel
    SubmitSharesSuccess {
        /// The channel.
        channel_id: U32,
        /// The last share that is accepted by this message.
        last_sequence_number: U32,
        /// Shares accepted by this message.
        new_submits_accepted_count: U32,
        /// Sum of their difficulties.
        new_shares_sum: U64,
    }

    /// Rejects one share (spec 5.3.14).
    0x0000 0x1d "SubmitShares.Error" Mining Client channel
    SubmitSharesError<'a> {
        /// The channel.
        channel_id: U32,
        /// The share.
        sequence_number: U32,
        /// Reason.
        error_code: ERROR_CODE,
    }

    /// A job with a rollable merkle root, for an extended or group channel (spec 5.3.16).
    0x0000 0x1f "NewExtendedMiningJob" Mining Client channel
    NewExtendedMiningJob<'a> {
        /// An extended channel or a group.
        channel_id: U32,
        /// The job.
        job_id: U32,
        /// Smallest ntime; empty for a future job.
        min_ntime: OPTION[U32],
        /// Block header version.
        version: U32,
        /// Whether the rollable bits of the version are free.
        version_rolling_allowed: BOOL,
        /// Hashes beside the coinbase's way to the root, deepest first.
        merkle_path: SEQ0_255[U256],
        /// Coinbase before the extranonce, without BIP141 fields.
        coinbase_tx_prefix: B0_64K,
        /// Coinbase after the extranonce, without BIP141 fields.
        coinbase_tx_suffix: B0_64K,
    }

    /// A new tip: only the named future job stays valid (spec 5.3.17).
    0x0000 0x20 "SetNewPrevHash" Mining Client channel
    SetNewPrevHash<'a> {
        /// A channel or a group.
        channel_id: U32,
        /// The future job that is mined from now on.
        job_id: U32,
        /// Block header field.
        prev_hash: U256,
        /// Smallest ntime.
        min_ntime: U32,
        /// Block header field.
        nbits: U32,
    }

    /// A new target for later and for future jobs (spec 5.3.21).
    0x0000 0x21 "SetTarget" Mining Client channel
    SetTarget<'a> {
        /// A channel or a group.
        channel_id: U32,
        /// The highest hash that is a share.
        maximum_target: U256,
    }

    /// A job that the client made (spec 5.3.18).
    0x0000 0x22 "SetCustomMiningJob" Mining Server channel
    SetCustomMiningJob<'a> {
        /// An extended channel or a group.
        channel_id: U32,
        /// Pairs the answer with this request.
        request_id: U32,
        /// The job declarator server's token.
        mining_job_token: B0_255,
        /// Block header version; its rollable bits are free.
        version: U32,
        /// Block header field.
        prev_hash: U256,
        /// Smallest ntime.
        min_ntime: U32,
        /// Block header field.
        nbits: U32,
        /// Coinbase nVersion.
        coinbase_tx_version: U32,
        /// At most 8 bytes that begin the coinbase's scriptSig.
        coinbase_prefix: B0_255,
        /// Sequence of the coinbase's input.
        coinbase_tx_input_n_sequence: U32,
        /// Coinbase outputs, as consensus encodes the vector.
        coinbase_tx_outputs: B0_64K,
        /// Coinbase locktime.
        coinbase_tx_locktime: U32,
        /// Hashes beside the coinbase's way to the root, deepest first.
        merkle_path: SEQ0_255[U256],
    }

    /// Accepts a custom job (spec 5.3.19).
    0x0000 0x23 "SetCustomMiningJob.Success" Mining Client channel
    SetCustomMiningJobSuccess {
        /// The channel.
        channel_id: U32,
        /// From the request.
        request_id: U32,
        /// The server's number for the job.
        job_id: U32,
    }

    /// Refuses a custom job (spec 5.3.20).
    0x0000 0x24 "SetCustomMiningJob.Error" Mining Client channel
    SetCustomMiningJobError<'a> {
        /// The channel.
        channel_id: U32,
        /// From the request.
        request_id: U32,
        /// Reason.
        error_code: ERROR_CODE,
    }

    /// Puts channels into a group (spec 5.3.22). Not a message of a channel, by spec 8.
    0x0000 0x25 "SetGroupChannel" Mining Client connection
    SetGroupChannel<'a> {
        /// The group.
        group_channel_id: U32,
        /// Its channels.
        channel_ids: SEQ0_64K[U32],
    }

    /// Asks for a token (spec 6.4.2).
    0x0000 0x50 "AllocateMiningJobToken" JobDeclaration Server connection
    AllocateMiningJobToken<'a> {
        /// Who declares, by the pool's rules.
        user_identifier: STR0_255,
        /// Pairs the answer with this request.
        request_id: U32,
    }

    /// Hands out a token (spec 6.4.3).
    0x0000 0x51 "AllocateMiningJobToken.Success" JobDeclaration Client connection
    AllocateMiningJobTokenSuccess<'a> {
        /// From the request.
        request_id: U32,
        /// The token.
        mining_job_token: B0_255,
        /// The pool's coinbase outputs, as consensus encodes the vector; the first takes the pool's reward.
        coinbase_tx_outputs: B0_64K,
    }

    /// Asks for transactions that the server does not have (spec 6.4.7).
    0x0000 0x55 "ProvideMissingTransactions" JobDeclaration Client connection
    ProvideMissingTransactions<'a> {
        /// From the declaration.
        request_id: U32,
        /// Positions in the declaration's list.
        unknown_tx_position_list: SEQ0_64K[U16],
    }

    /// Brings the transactions that were asked for (spec 6.4.8).
    0x0000 0x56 "ProvideMissingTransactions.Success" JobDeclaration Server connection
    ProvideMissingTransactionsSuccess<'a> {
        /// From the declaration.
        request_id: U32,
        /// Transactions in the order of the question.
        transaction_list: SEQ0_64K[B0_16M],
    }

    /// Declares a job with all its transactions (spec 6.4.4).
    0x0000 0x57 "DeclareMiningJob" JobDeclaration Server connection
    DeclareMiningJob<'a> {
        /// Pairs the answer with this request.
        request_id: U32,
        /// A token of the server.
        mining_job_token: B0_255,
        /// Block header version.
        version: U32,
        /// Coinbase before the extranonce, with BIP141 fields.
        coinbase_tx_prefix: B0_64K,
        /// Coinbase after the extranonce, with BIP141 fields.
        coinbase_tx_suffix: B0_64K,
        /// The transactions' wtxids, without the coinbase.
        wtxid_list: SEQ0_64K[U256],
        /// What else the pool needs to check the job.
        excess_data: B0_64K,
    }

    /// Accepts a declared job (spec 6.4.5).
    0x0000 0x58 "DeclareMiningJob.Success" JobDeclaration Client connection
    DeclareMiningJobSuccess<'a> {
        /// From the request.
        request_id: U32,
        /// The token for [`SetCustomMiningJob`].
        new_mining_job_token: B0_255,
    }

    /// Refuses a declared job (spec 6.4.6).
    0x0000 0x59 "DeclareMiningJob.Error" JobDeclaration Client connection
    DeclareMiningJobError<'a> {
        /// From the request.
        request_id: U32,
        /// Reason.
        error_code: ERROR_CODE,
        /// More about the reason.
        error_details: B0_64K,
    }

    /// A block was found on the declared job (spec 6.4.9).
    0x0000 0x60 "PushSolution" JobDeclaration Server connection
    PushSolution<'a> {
        /// The full extranonce.
        extranonce: B0_32,
        /// Block header field.
        prev_hash: U256,
        /// Block header field.
        nonce: U32,
        /// Block header field.
        ntime: U32,
        /// Block header field.
        nbits: U32,
        /// Block header field.
        version: U32,
    }

    /// Tells how much coinbase the client will add (spec 7.1).
    0x0000 0x70 "CoinbaseOutputConstraints" TemplateDistribution Server connection
    CoinbaseOutputConstraints {
        /// Serialized bytes of outputs at most.
        coinbase_output_max_additional_size: U32,
        /// Signature operations of outputs at most.
        coinbase_output_max_additional_sigops: U16,
    }

    /// A block template (spec 7.2).
    0x0000 0x71 "NewTemplate" TemplateDistribution Client connection
    NewTemplate<'a> {
        /// The template; strictly rising.
        template_id: U64,
        /// Whether it waits for a [`TemplateSetNewPrevHash`].
        future_template: BOOL,
        /// Block header version; its rollable bits are free.
        version: U32,
        /// Coinbase nVersion.
        coinbase_tx_version: U32,
        /// At most 8 bytes that begin the coinbase's scriptSig.
        coinbase_prefix: B0_255,
        /// Sequence of the coinbase's input.
        coinbase_tx_input_sequence: U32,
        /// Satoshis that the client's outputs may spend.
        coinbase_tx_value_remaining: U64,
        /// Outputs in `coinbase_tx_outputs`.
        coinbase_tx_outputs_count: U32,
        /// Outputs that end the coinbase, one after the other, without a count in front.
        coinbase_tx_outputs: B0_64K,
        /// Coinbase locktime.
        coinbase_tx_locktime: U32,
        /// Hashes beside the coinbase's way to the root, deepest first.
        merkle_path: SEQ0_255[U256],
    }

    /// A new tip and the template for it (`SetNewPrevHash` of the Template Distribution Protocol, spec 7.3).
    0x0000 0x72 "SetNewPrevHash" TemplateDistribution Client connection
    TemplateSetNewPrevHash<'a> {
        /// The future template that is mined from now on.
        template_id: U64,
        /// Block header field.
        prev_hash: U256,
        /// The ntime to begin with; not the smallest one allowed.
        header_timestamp: U32,
        /// Block header field.
        n_bits: U32,
        /// The highest hash that is a block; it may be below what `n_bits` says.
        target: U256,
    }

    /// Asks for a template's transactions (spec 7.4).
    0x0000 0x73 "RequestTransactionData" TemplateDistribution Server connection
    RequestTransactionData {
        /// The template.
        template_id: U64,
    }

    /// Brings a template's transactions (spec 7.5).
    0x0000 0x74 "RequestTransactionData.Success" TemplateDistribution Client connection
    RequestTransactionDataSuccess<'a> {
        /// The template.
        template_id: U64,
        /// What else the pool needs to check the work; opaque.
        excess_data: B0_64K,
        /// The transactions without the coinbase.
        transaction_list: SEQ0_64K[B0_16M],
    }

    /// Refuses a template's transactions (spec 7.6).
    0x0000 0x75 "RequestTransactionData.Error" TemplateDistribution Client connection
    RequestTransactionDataError<'a> {
        /// The template.
        template_id: U64,
        /// Reason.
        error_code: ERROR_CODE,
    }

    /// A block was found on a template (spec 7.7).
    0x0000 0x76 "SubmitSolution" TemplateDistribution Server connection
    SubmitSolution<'a> {
        /// The template.
        template_id: U64,
        /// Block header field.
        version: U32,
        /// Block header field.
        header_timestamp: U32,
        /// Block header field.
        header_nonce: U32,
        /// The whole coinbase, with BIP141 fields.
        coinbase_tx: B0_64K,
    }

    /// Asks which extensions can be used (extension 0x0001).
    0x0001 0x00 "RequestExtensions" All Server connection
    RequestExtensions<'a> {
        /// Pairs the answer with this request.
        request_id: U16,
        /// Extensions that the client wants.
        requested_extensions: SEQ0_64K[U16],
    }

    /// Names the extensions that can be used (extension 0x0001).
    0x0001 0x01 "RequestExtensions.Success" All Client connection
    RequestExtensionsSuccess<'a> {
        /// From the request.
        request_id: U16,
        /// Extensions that are in force from now on.
        supported_extensions: SEQ0_64K[U16],
    }

    /// Refuses the wanted extensions (extension 0x0001).
    0x0001 0x02 "RequestExtensions.Error" All Client connection
    RequestExtensionsError<'a> {
        /// From the request.
        request_id: U16,
        /// Extensions that the server does not have.
        unsupported_extensions: SEQ0_64K[U16],
        /// Extensions that the server insists on and that were not asked for.
        required_extensions: SEQ0_64K[U16],
    }
}
