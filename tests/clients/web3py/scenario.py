"""web3.py against a cluster: every write goes to one node and is read back from the others.

Environment: RPC_URLS (space separated), CHAIN_ID, PRIVATE_KEY; contracts/out holds the artifacts.
"""

import asyncio
import json
import os

import pytest
from web3 import AsyncWeb3, HTTPProvider, Web3, WebSocketProvider
from web3.exceptions import ContractCustomError, ContractLogicError, Web3RPCError
from web3.middleware import SignAndSendRawMiddlewareBuilder

URLS = os.environ["RPC_URLS"].split(" ")
CHAIN_ID = int(os.environ["CHAIN_ID"])


def connect(url):
    w3 = Web3(HTTPProvider(url))
    account = w3.eth.account.from_key(os.environ["PRIVATE_KEY"])
    w3.middleware_onion.inject(SignAndSendRawMiddlewareBuilder.build(account), layer=0)
    w3.eth.default_account = account.address
    return w3


NODES = [connect(url) for url in URLS]
FIRST, LAST = NODES[0], NODES[-1]


def artifact(name):
    with open(f"contracts/out/{name}.sol/{name}.json") as file:
        content = json.load(file)
    return {"abi": content["abi"], "bytecode": content["bytecode"]["object"]}


def mined(transaction_hash, status=1):
    """The receipt as every node tells it; they must agree."""
    receipts = [w3.eth.wait_for_transaction_receipt(transaction_hash, 20, 0.05) for w3 in NODES]
    assert all(receipt == receipts[0] for receipt in receipts)
    assert receipts[0]["status"] == status
    return receipts[0]


print("web3.py: chain, transfers")
for w3 in NODES:
    assert w3.is_connected(show_traceback=True)
    assert w3.eth.chain_id == CHAIN_ID
stranger = FIRST.eth.account.create().address
plain = mined(LAST.eth.send_transaction({"to": stranger, "value": Web3.to_wei(1, "ether")}))
assert plain["gasUsed"] == 21_000
mined(FIRST.eth.send_transaction({"to": stranger, "value": 1, "gasPrice": FIRST.eth.gas_price * 2}))
for w3 in NODES:
    assert w3.eth.get_balance(stranger) == Web3.to_wei(1, "ether") + 1
    block = w3.eth.get_block(plain["blockNumber"], full_transactions=True)
    assert block["transactions"][plain["transactionIndex"]]["hash"] == plain["transactionHash"]
with pytest.raises(Web3RPCError, match="nonce too low"):
    LAST.eth.send_transaction({"to": stranger, "value": 1, "nonce": 0})

print("web3.py: contracts, events, errors")
deployed = mined(FIRST.eth.contract(**artifact("Counter")).constructor(5).transact())
counters = [w3.eth.contract(deployed["contractAddress"], abi=artifact("Counter")["abi"]) for w3 in NODES]
written = mined(counters[-1].functions.setNumber(42).transact())
for counter in counters:
    assert counter.functions.number().call() == 42
    assert counter.functions.number().call(block_identifier=deployed["blockNumber"]) == 5
    (event,) = counter.events.NumberSet().get_logs(from_block=deployed["blockNumber"])
    assert (event["transactionHash"], event["args"]["value"]) == (written["transactionHash"], 42)
with pytest.raises(ContractCustomError):
    counters[-1].functions.setNumber(1001).call()
with pytest.raises(ContractLogicError, match="not today"):
    counters[0].functions.refuse().call()
mined(counters[0].functions.refuse().transact({"gas": 100_000}), status=0)
proof = LAST.eth.get_proof(deployed["contractAddress"], [0], "latest")
assert int(proof["storageProof"][0]["value"].hex() or "0", 16) == 42

print("web3.py: newHeads and logs over WebSocket on one node while another is written to")


async def watch():
    async with AsyncWeb3(WebSocketProvider(URLS[0].replace("http", "ws", 1))) as w3:
        heads = await w3.eth.subscribe("newHeads")
        logs = await w3.eth.subscribe("logs", {"address": deployed["contractAddress"]})
        for value in (31, 32, 33):
            counters[-1].functions.setNumber(value).transact()
        numbers, values = [], []
        async with asyncio.timeout(20):
            async for message in w3.socket.process_subscriptions():
                if message["subscription"] == heads:
                    numbers.append(message["result"]["number"])
                else:
                    assert message["subscription"] == logs
                    values.append(int.from_bytes(message["result"]["data"], "big"))
                if len(values) == 3 and numbers:
                    break
        assert values == [31, 32, 33]
        assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))


asyncio.run(watch())
print("web3.py: passed")
