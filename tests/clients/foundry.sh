#!/usr/bin/env bash
# cast and forge against a cluster: every write goes to one node and is read back from the others.
# Environment: RPC_URLS (space separated), CHAIN_ID, PRIVATE_KEY; cast, forge and solc beside this file.
set -euo pipefail
cd "$(dirname "$0")"

read -r -a urls <<<"$RPC_URLS"
first="${urls[0]}"
middle="${urls[$((${#urls[@]} / 2))]}"
last="${urls[$((${#urls[@]} - 1))]}"
key=(--private-key "$PRIVATE_KEY")
checks=0

# The binaries themselves: the wrappers that npm links lose their exit code.
cast_bin="$(echo "$PWD"/node_modules/@foundry-rs/cast-*/bin/cast)"
forge_bin="$(echo "$PWD"/node_modules/@foundry-rs/forge-*/bin/forge)"
cast() { "$cast_bin" "$@"; }
forge() { (cd contracts && "$forge_bin" "$1" --offline --use ../solc "${@:2}"); }
fail() {
    printf 'foundry: FAILED: %s\n' "$*" >&2
    exit 1
}
equal() { # what, got, wanted
    [ "$2" = "$3" ] || fail "$1: got '$2', wanted '$3'"
    checks=$((checks + 1))
}
contains() { # what, text, part
    case "$2" in *"$3"*) checks=$((checks + 1)) ;; *) fail "$1: '$3' not found in: $2" ;; esac
}
# Every node has the transaction, with the same fate in the same block.
everywhere() { # hash, status
    local url block_hash
    block_hash="$(cast receipt "$1" blockHash --rpc-url "$first")"
    for url in "${urls[@]}"; do
        equal "block of $1 on $url" "$(cast receipt "$1" blockHash --rpc-url "$url")" "$block_hash"
        contains "status of $1 on $url" "$(cast receipt "$1" status --rpc-url "$url")" "$2"
    done
}
field() { python3 -c 'import json,sys; print(json.load(sys.stdin)[sys.argv[1]])' "$1"; }
wallet() { python3 -c 'import json,sys; print(json.load(sys.stdin)[0][sys.argv[1]])' "$1"; }
# The message of a JSON-RPC error that must come.
refused() { # what, wanted text, command..
    local what="$1" wanted="$2" out
    shift 2
    if out="$("$@" 2>&1)"; then fail "$what: accepted: $out"; fi
    contains "$what" "$out" "$wanted"
}

me="$(cast wallet address "${key[@]}")"
stranger="$(cast wallet new --json | wallet address)"

echo "foundry: chain"
for url in "${urls[@]}"; do
    equal "chain id of $url" "$(cast chain-id --rpc-url "$url")" "$CHAIN_ID"
    contains "client of $url" "$(cast client --rpc-url "$url")" "/"
    equal "genesis of $url" "$(cast block 0 --field hash --rpc-url "$url")" "$(cast block 0 --field hash --rpc-url "$first")"
done

echo "foundry: transfers of three transaction types, each to another node"
hash1="$(cast send "$stranger" --value 1ether "${key[@]}" --rpc-url "$first" --json | field transactionHash)"
everywhere "$hash1" true
hash2="$(cast send "$stranger" --value 1ether --legacy "${key[@]}" --rpc-url "$middle" --json | field transactionHash)"
everywhere "$hash2" true
hash3="$(cast send "$stranger" --value 1ether --access-list "[]" "${key[@]}" --rpc-url "$last" --json | field transactionHash)"
everywhere "$hash3" true
for url in "${urls[@]}"; do
    equal "balance on $url" "$(cast balance "$stranger" --rpc-url "$url" --ether)" "3.000000000000000000"
    equal "transaction sender on $url" "$(cast tx "$hash1" from --rpc-url "$url")" "$me"
done

echo "foundry: signed offline, published elsewhere"
raw="$(cast mktx "$stranger" --value 5 "${key[@]}" --rpc-url "$first")"
hash4="$(cast publish --async "$raw" --rpc-url "$last")"
everywhere "$hash4" true
nonce="$(cast nonce "$me" --rpc-url "$first")"
equal "nonce" "$nonce" "$(cast nonce "$me" --block pending --rpc-url "$middle")"
hash5="$(cast send "$stranger" --value 1 --async "${key[@]}" --rpc-url "$middle")"
everywhere "$hash5" true
refused "a used nonce" "nonce too low" cast send "$stranger" --value 1 --nonce 0 --gas-limit 21000 "${key[@]}" --rpc-url "$last"
refused "an unknown method" "-32601" cast rpc no_suchMethod --rpc-url "$middle"

echo "foundry: forge create"
created="$(forge create --rpc-url "$middle" "${key[@]}" --broadcast --json src/Counter.sol:Counter --constructor-args 5)"
counter="$(field deployedTo <<<"$created")"
everywhere "$(field transactionHash <<<"$created")" true
for url in "${urls[@]}"; do
    equal "number on $url" "$(cast call "$counter" 'number()(uint256)' --rpc-url "$url")" 5
done

echo "foundry: calls, events, errors"
sent="$(cast send "$counter" 'setNumber(uint256)' 41 "${key[@]}" --rpc-url "$last" --json | field transactionHash)"
everywhere "$sent" true
block="$(cast receipt "$sent" blockNumber --rpc-url "$first")"
for url in "${urls[@]}"; do
    equal "number on $url" "$(cast call "$counter" 'number()(uint256)' --rpc-url "$url")" 41
    equal "number before on $url" "$(cast call "$counter" 'number()(uint256)' --block $((block - 1)) --rpc-url "$url")" 5
    equal "slot on $url" "$(cast storage "$counter" 0 --rpc-url "$url")" "0x$(printf '%064x' 41)"
    contains "logs on $url" "$(cast logs --from-block 0 --address "$counter" 'NumberSet(address indexed,uint256)' --rpc-url "$url")" "$sent"
done
equal "code" "$(cast code "$counter" --rpc-url "$last")" "$(cast code "$counter" --rpc-url "$first")"
equal "code hash" "$(cast codehash "$counter" --rpc-url "$middle")" "$(cast keccak "$(cast code "$counter" --rpc-url "$first")")"
equal "storage root" "$(cast storage-root "$counter" --rpc-url "$last")" "$(cast storage-root "$counter" --rpc-url "$first")"
contains "proof" "$(cast proof "$counter" 0 --rpc-url "$middle")" '"value":"0x29"'
contains "access list" "$(cast access-list "$counter" 'setNumber(uint256)' 42 --from "$me" --rpc-url "$last")" "0x$(printf '%064x' 0)"
gas="$(cast estimate "$counter" 'setNumber(uint256)' 42 --from "$me" --rpc-url "$middle")"
[ "$gas" -gt 21000 ] && [ "$gas" -lt 60000 ] || fail "estimate: $gas"
refused "a custom error" "$(cast sig 'TooLarge(uint256,uint256)')" cast call "$counter" 'setNumber(uint256)' 1001 --rpc-url "$first"
refused "a reason" "not today" cast call "$counter" 'refuse()' --rpc-url "$middle"
refused "a send that reverts" "not today" cast send "$counter" 'refuse()' "${key[@]}" --rpc-url "$last"
reverted="$(cast send "$counter" 'refuse()' --gas-limit 100000 "${key[@]}" --rpc-url "$first" --async)"
everywhere "$reverted" false

echo "foundry: fees and blocks"
for url in "${urls[@]}"; do
    cast gas-price --rpc-url "$url" >/dev/null
    cast base-fee --rpc-url "$url" >/dev/null
    cast age latest --rpc-url "$url" >/dev/null
    contains "fee history on $url" "$(cast rpc eth_feeHistory 0x4 latest '[25,75]' --rpc-url "$url")" baseFeePerGas
    contains "pool on $url" "$(cast rpc txpool_status --rpc-url "$url")" pending
    equal "block $block on $url" "$(cast block "$block" --field hash --rpc-url "$url")" "$(cast block "$block" --field hash --rpc-url "$first")"
    equal "state root of $block on $url" "$(cast block "$block" --field stateRoot --rpc-url "$url")" "$(cast block "$block" --field stateRoot --rpc-url "$first")"
    contains "finalized on $url" "$(cast block finalized --json --rpc-url "$url")" '"hash"'
done
timestamp="$(cast block "$block" --field timestamp --rpc-url "$first")"
cast find-block "$timestamp" --rpc-url "$middle" >/dev/null

echo "foundry: an account delegates to a contract (EIP-7702)"
auth_key="$(cast wallet new --json | wallet private_key)"
delegate="$(cast wallet address --private-key "$auth_key")"
signed="$(cast wallet sign-auth "$counter" --private-key "$auth_key" --nonce 0 --rpc-url "$first")"
everywhere "$(cast send "$delegate" 'increment()' --auth "$signed" "${key[@]}" --rpc-url "$middle" --json | field transactionHash)" true
for url in "${urls[@]}"; do
    equal "delegated number on $url" "$(cast call "$delegate" 'number()(uint256)' --rpc-url "$url")" 1
done

echo "foundry: forge script --broadcast, four transactions back to back"
forge script --rpc-url "$last" --broadcast script/Deploy.s.sol:Deploy >script.log 2>&1 || { cat script.log; fail "forge script"; }
broadcast="contracts/broadcast/Deploy.s.sol/$CHAIN_ID/run-latest.json"
[ -f "$broadcast" ] || fail "no $broadcast"
while read -r hash; do everywhere "$hash" true; done < <(python3 -c 'import json,sys; [print(r["transactionHash"]) for r in json.load(open(sys.argv[1]))["receipts"]]' "$broadcast")
token="$(python3 -c 'import json,sys; print([t["contractAddress"] for t in json.load(open(sys.argv[1]))["transactions"] if t["contractName"]=="Token"][0])' "$broadcast")"
for url in "${urls[@]}"; do
    equal "token symbol on $url" "$(cast call "$token" 'symbol()(string)' --rpc-url "$url")" '"SCR"'
done

echo "foundry: $checks checks passed"
