"""What web3.py's published provider suite asks of a chain: one funded key, six contracts, a few blocks.

Environment: SUITE_URL, a fresh node with chain id 131277322940537 (the suite's own); PRIVATE_KEY, a
funded account; SUITE_PASSED, a file to which the names of passed tests are added. The node holds no
keys: the client signs, and says itself which accounts there are, as a wallet does.
"""

import os
import time

import pytest
import pytest_asyncio
from web3 import AsyncHTTPProvider, AsyncWeb3, HTTPProvider, Web3
from web3._utils.contract_sources.contract_data.emitter_contract import EMITTER_CONTRACT_DATA
from web3._utils.contract_sources.contract_data.math_contract import MATH_CONTRACT_DATA
from web3._utils.contract_sources.contract_data.offchain_lookup import OFFCHAIN_LOOKUP_DATA
from web3._utils.contract_sources.contract_data.panic_errors_contract import PANIC_ERRORS_CONTRACT_DATA
from web3._utils.contract_sources.contract_data.revert_contract import REVERT_CONTRACT_DATA
from web3._utils.contract_sources.contract_data.storage_contract import STORAGE_CONTRACT_DATA
from web3._utils.module_testing.utils import RequestMocker
from web3.middleware import SignAndSendRawMiddlewareBuilder, Web3Middleware

URL = os.environ["SUITE_URL"]
ACCOUNT = Web3().eth.account.from_key(os.environ["PRIVATE_KEY"])
CONTRACTS = {
    "math": MATH_CONTRACT_DATA,
    "emitter": EMITTER_CONTRACT_DATA,
    "revert": REVERT_CONTRACT_DATA,
    "storage": STORAGE_CONTRACT_DATA,
    "panic_errors": PANIC_ERRORS_CONTRACT_DATA,
    "offchain_lookup": OFFCHAIN_LOOKUP_DATA,
}


class OwnAccounts(Web3Middleware):
    """Answers eth_accounts with the account whose key this client holds."""

    def response_processor(self, method, response):
        return {**response, "result": [ACCOUNT.address]} if method == "eth_accounts" else response

    async def async_response_processor(self, method, response):
        return self.response_processor(method, response)


def signing(w3):
    w3.middleware_onion.inject(SignAndSendRawMiddlewareBuilder.build(ACCOUNT), layer=0)
    w3.middleware_onion.inject(OwnAccounts, layer=0)
    w3.eth.default_account = ACCOUNT.address
    return w3


def sync_client():
    return signing(Web3(HTTPProvider(URL, request_kwargs={"timeout": 10})))


@pytest.fixture(scope="session")
def chain():
    """The chain as every test finds it: contracts by name, and the transactions that tests look up."""
    w3 = sync_client()
    state = {"w3": w3, "address": {}, "deployed_by": {}}
    for name, data in CONTRACTS.items():
        transaction = w3.eth.contract(abi=data["abi"], bytecode=data["bytecode"]).constructor().transact()
        receipt = w3.eth.wait_for_transaction_receipt(transaction, 20, 0.02)
        assert receipt["status"] == 1, name
        state["deployed_by"][name] = transaction
        state["address"][name] = receipt["contractAddress"]
    transfer = w3.eth.send_transaction({"to": ACCOUNT.address, "value": 1, "gas": 21_000})
    state["mined"] = transfer
    state["block_with_txn"] = w3.eth.get_block(w3.eth.wait_for_transaction_receipt(transfer, 20, 0.02)["blockNumber"])
    emitter = w3.eth.contract(state["address"]["emitter"], abi=EMITTER_CONTRACT_DATA["abi"])
    # Event 9 of the contract is LogDoubleWithIndex(uint256 arg0, uint256 indexed arg1).
    logged = emitter.functions.logDouble(which=9, arg0=12345, arg1=54321).transact()
    state["logged"] = logged
    state["block_with_log"] = w3.eth.get_block(w3.eth.wait_for_transaction_receipt(logged, 20, 0.02)["blockNumber"])
    return state


@pytest.fixture(autouse=True)
def settled_pool(chain):
    """Tests of the suite read `latest` nonces; what the test before has sent must be in a block by then."""
    request = chain["w3"].provider.make_request
    deadline = time.monotonic() + 5
    while int(request("txpool_status", [])["result"]["pending"], 16) and time.monotonic() < deadline:
        time.sleep(0.01)


@pytest.fixture
def w3(chain):
    return sync_client()


@pytest_asyncio.fixture
async def async_w3(chain):
    w3 = signing(AsyncWeb3(AsyncHTTPProvider(URL)))
    yield w3
    await w3.provider.disconnect()


def contract_fixtures(name):
    def contract(w3, chain):
        return w3.eth.contract(chain["address"][name], abi=CONTRACTS[name]["abi"])

    def async_contract(async_w3, chain):
        return async_w3.eth.contract(chain["address"][name], abi=CONTRACTS[name]["abi"])

    def address(chain):
        return chain["address"][name]

    return {
        f"{name}_contract": contract,
        f"async_{name}_contract": async_contract,
        f"{name}_contract_address": address,
        f"async_{name}_contract_address": address,
    }


def both(name, function):
    return {name: function, f"async_{name}": function}


FIXTURES = {
    **both("keyfile_account_address", lambda: ACCOUNT.address),
    **both("keyfile_account_address_dual_type", lambda: ACCOUNT.address),
    **both("keyfile_account_pkey", lambda: ACCOUNT.key.hex()),
    **both("skip_if_testrpc", lambda: lambda _: None),
    **both("empty_block", lambda w3: w3.eth.get_block(0)),
    **both("block_with_txn", lambda chain: chain["block_with_txn"]),
    **both("block_with_txn_with_log", lambda chain: chain["block_with_log"]),
    "mined_txn_hash": lambda chain: chain["mined"],
    "txn_hash_with_log": lambda chain: chain["logged"],
    "math_contract_deploy_txn_hash": lambda chain: chain["deployed_by"]["math"],
    "request_mocker": lambda: RequestMocker,
}
for contract_name in CONTRACTS:
    FIXTURES.update(contract_fixtures(contract_name))
for fixture_name, fixture_function in FIXTURES.items():
    globals()[fixture_name] = pytest.fixture(fixture_function, name=fixture_name)


OUTCOMES = {}
# Tests that say nothing here, or not the same twice.
NOT_COUNTED = (
    "_unmined",  # race with the block that includes the transaction
    "eth_accounts",  # answered above
    # Unsubscribes at once; jsonrpsee registers a subscription after it has answered with its id.
    "test_async_logs_subscription_with_and_or_topic_patterns",
)


def pytest_runtest_logreport(report):
    """A test passes when its call passes and neither its set-up nor its tear-down fails."""
    passed = report.passed and not hasattr(report, "wasxfail")
    if report.when == "call" or not passed:
        OUTCOMES[report.nodeid] = passed and OUTCOMES.get(report.nodeid, True)


def pytest_sessionfinish():
    passed = [name for name, ok in OUTCOMES.items() if ok and not any(word in name for word in NOT_COUNTED)]
    with open(os.environ["SUITE_PASSED"], "a") as file:
        file.writelines(f"{name}\n" for name in passed)
