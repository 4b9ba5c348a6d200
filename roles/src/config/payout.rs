//! Who gets the reward: an address or an output descriptor, checked against the chain.
//!
//! Bounds: a script of at most 128 bytes and 100 signature operations, so that templates leave it room enough.

use std::fmt;
use std::str::FromStr;

use adit_proto::distribution::Constraints;
use bitcoin::address::NetworkUnchecked;
use bitcoin::hex::FromHex;
use bitcoin::{Address, Amount, Network, NetworkKind, ScriptBuf, TxOut};
use miniscript::descriptor::{Descriptor, DescriptorPublicKey, checksum};

/// The longest script that is accepted, in bytes: a bare 3-of-3 multisig has 105, everything else 42 at most.
const SCRIPT_LEN_MAX: usize = 128;
/// The most signature operations: what other nodes leave to a coinbase if nobody asks, a cost of 400.
const SIGOPS_MAX: usize = 100;
/// What consensus counts for a signature operation outside of witnesses (BIP141).
const SIGOP_COST: usize = 4;

/// A script that is paid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Payout {
    /// The script of the output.
    pub script: ScriptBuf,
    network: Network,
}

impl Payout {
    /// Reads an address or a descriptor for `network`.
    ///
    /// # Errors
    /// What is wrong, as words that follow the value.
    pub fn parse(text: &str, network: Network) -> Result<Self, String> {
        let text = text.trim();
        let body = verified_body(text)?;
        let script = if let Some(inner) = argument(body, "addr") {
            from_address(inner, network)?
        } else if let Some(inner) = argument(body, "raw") {
            ScriptBuf::from(
                Vec::<u8>::from_hex(inner).map_err(|error| format!("raw(...) wants hex digits: {error}"))?,
            )
        } else if body.contains('(') {
            from_descriptor(text, network)?
        } else {
            from_address(body, network)?
        };
        check_script(&script)?;
        Ok(Self { script, network })
    }

    /// What the pool adds to a coinbase: one output that pays this script. A signature operation outside of witnesses
    /// costs `SIGOP_COST`.
    pub fn constraints(&self) -> Constraints {
        let output = TxOut { value: Amount::ZERO, script_pubkey: self.script.clone() };
        let bounded = "check_script bounds the script";
        Constraints {
            max_additional_size: u32::try_from(output.size()).expect(bounded),
            max_additional_sigops: u16::try_from(self.script.count_sigops_legacy() * SIGOP_COST)
                .expect(bounded),
        }
    }
}

impl fmt::Display for Payout {
    /// The address, if the script has one, and the script.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match Address::from_script(&self.script, self.network) {
            Ok(address) => write!(f, "{address} (script {})", self.script.to_hex_string()),
            Err(_) => write!(f, "script {}", self.script.to_hex_string()),
        }
    }
}

/// The descriptor without its checksum, which is compared if it is there.
fn verified_body(text: &str) -> Result<&str, String> {
    let Some((body, found)) = text.split_once('#') else { return Ok(text) };
    let expected = checksum::desc_checksum(body).map_err(|error| error.to_string())?;
    if found == expected {
        Ok(body)
    } else {
        Err(format!(
            "the checksum #{found} does not match the descriptor, which has #{expected}: a character is wrong"
        ))
    }
}

fn argument<'a>(text: &'a str, function: &str) -> Option<&'a str> {
    text.strip_prefix(function)?.strip_prefix('(')?.strip_suffix(')')
}

fn from_address(text: &str, network: Network) -> Result<ScriptBuf, String> {
    let address: Address<NetworkUnchecked> = text.parse().map_err(|error| no_address(text, &error))?;
    if !address.is_valid_for_network(network) {
        let belongs: Vec<_> = [Network::Bitcoin, Network::Testnet, Network::Signet, Network::Regtest]
            .into_iter()
            .filter(|candidate| address.is_valid_for_network(*candidate))
            .map(chain_name)
            .collect();
        return Err(format!(
            "an address of {}, but the pool mines {}; give an address of {}",
            belongs.join(" or "),
            chain_name(network),
            match network {
                Network::Bitcoin => "the main chain (bc1...)",
                Network::Regtest => "regtest (bcrt1...), or a script as raw(...)",
                _ => "a test chain (tb1...), or a script as raw(...)",
            }
        ));
    }
    Ok(address.assume_checked().script_pubkey())
}

/// Why a text is no address. The library's own words speak of one encoding only.
fn no_address(text: &str, error: &impl fmt::Display) -> String {
    let is_bech32 = ["bc1", "tb1", "bcrt1"].iter().any(|start| text.to_ascii_lowercase().starts_with(start));
    if text.is_empty() {
        "empty; give an address or a descriptor".to_owned()
    } else if is_bech32 {
        "not a whole address: a character is wrong or missing".to_owned()
    } else {
        format!("no address and no descriptor: {error}")
    }
}

fn from_descriptor(text: &str, network: Network) -> Result<ScriptBuf, String> {
    if text.contains("prv") {
        return Err(
            "the descriptor holds a private key, which has no place here: write its public form".to_owned()
        );
    }
    let descriptor = Descriptor::<DescriptorPublicKey>::from_str(text)
        .map_err(|error| format!("no descriptor that is understood: {error}"))?;
    if descriptor.has_wildcard() || descriptor.is_multipath() {
        return Err("the descriptor names many scripts; replace * and <...> by one index".to_owned());
    }
    check_keys(&descriptor, network)?;
    let definite = descriptor.at_derivation_index(0).map_err(|error| error.to_string())?;
    Ok(definite.script_pubkey())
}

/// Extended keys say which network they belong to.
fn check_keys(descriptor: &Descriptor<DescriptorPublicKey>, network: Network) -> Result<(), String> {
    use miniscript::ForEachKey;
    let expected = NetworkKind::from(network);
    let fits = descriptor.for_each_key(|key| match key {
        DescriptorPublicKey::XPub(xpub) => xpub.xkey.network == expected,
        DescriptorPublicKey::MultiXPub(xpub) => xpub.xkey.network == expected,
        DescriptorPublicKey::Single(_) => true,
    });
    if fits {
        return Ok(());
    }
    Err(format!(
        "an extended key of {}, but the pool mines {}",
        if expected == NetworkKind::Main { "a test chain (tpub)" } else { "the main chain (xpub)" },
        chain_name(network)
    ))
}

fn check_script(script: &ScriptBuf) -> Result<(), String> {
    if script.is_empty() {
        return Err("an empty script".to_owned());
    }
    if script.len() > SCRIPT_LEN_MAX {
        return Err(format!("a script of {} bytes, at most {SCRIPT_LEN_MAX}", script.len()));
    }
    let sigops = script.count_sigops_legacy();
    if sigops > SIGOPS_MAX {
        return Err(format!("a script of {sigops} signature operations, at most {SIGOPS_MAX}"));
    }
    if script.is_op_return() {
        return Err("nobody can spend from OP_RETURN: the reward would be lost".to_owned());
    }
    Ok(())
}

const fn chain_name(network: Network) -> &'static str {
    match network {
        Network::Bitcoin => "the main chain",
        Network::Testnet => "testnet",
        Network::Signet => "signet",
        Network::Regtest => "regtest",
        _ => "another chain",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REGTEST: &str = "bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080";
    const MAIN: &str = "bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4";
    const WITNESS: &str = "0014751e76e8199196d454941c45d1b3a323f1433bd6";
    const KEY: &str = "0279be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798";

    fn hex(text: &str, network: Network) -> String {
        Payout::parse(text, network).unwrap().script.to_hex_string()
    }

    #[test]
    fn one_script_in_all_its_forms() {
        for text in [
            REGTEST.to_owned(),
            format!("addr({REGTEST})"),
            format!("wpkh({KEY})"),
            format!("raw({WITNESS})"),
        ] {
            assert_eq!(hex(&text, Network::Regtest), WITNESS, "{text}");
            let sum = checksum::desc_checksum(&text).unwrap();
            assert_eq!(hex(&format!("{text}#{sum}"), Network::Regtest), WITNESS);
            assert!(Payout::parse(&format!("{text}#qqqqqqqq"), Network::Regtest).is_err());
        }
        assert_eq!(hex("raw(51)", Network::Signet), "51");
        assert_eq!(hex(MAIN, Network::Bitcoin), WITNESS);
    }

    #[test]
    fn the_chain_is_compared() {
        let error = Payout::parse(MAIN, Network::Regtest).unwrap_err();
        assert!(error.contains("of the main chain, but the pool mines regtest"), "{error}");
        let xpub = "xpub661MyMwAqRbcFW31YEwpkMuc5THy2PSt5bDMsktWQcFF8syAmRUapSCGu8ED9W6oDMSgv6Zz8idoc4a6mr8BDzTJY47LJhkJ8UB7WEGuduB";
        assert!(Payout::parse(&format!("wpkh({xpub}/0/1)"), Network::Bitcoin).is_ok());
        let error = Payout::parse(&format!("wpkh({xpub}/0/1)"), Network::Signet).unwrap_err();
        assert!(error.contains("the main chain (xpub)"), "{error}");
        assert!(
            Payout::parse(&format!("wpkh({xpub}/0/*)"), Network::Bitcoin)
                .unwrap_err()
                .contains("many scripts")
        );
    }

    #[test]
    fn what_would_lose_the_reward_is_refused() {
        for text in
            ["", "raw()", "raw(6a0142)", "raw(5)", "addr()", "wpkh(xprv9s21)", "nonsense", "pkh", "((", "#"]
        {
            assert!(Payout::parse(text, Network::Regtest).is_err(), "{text:?}");
        }
        assert!(
            Payout::parse(&format!("raw({})", "51".repeat(129)), Network::Regtest)
                .unwrap_err()
                .contains("at most 128")
        );
        let many = Payout::parse(&format!("raw({})", "ac".repeat(101)), Network::Regtest).unwrap_err();
        assert!(many.contains("101 signature operations, at most 100"), "{many}");
    }

    #[test]
    fn a_slip_in_an_address_is_said_in_plain_words() {
        let slip = REGTEST.replace("080", "081");
        let error = Payout::parse(&slip, Network::Regtest).unwrap_err();
        assert_eq!(error, "not a whole address: a character is wrong or missing");
        assert!(Payout::parse(" ", Network::Regtest).unwrap_err().starts_with("empty"));
    }
}
