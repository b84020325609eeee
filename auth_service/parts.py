"""The collaborators below the endpoints, made and joined: what the service and the command line are built from."""

from urllib.parse import urlsplit

from auth_service.accounts.address_buckets import AddressBuckets
from auth_service.accounts.clients import Clients
from auth_service.accounts.live_tokens import LiveTokens
from auth_service.accounts.name_questions import NameQuestions
from auth_service.accounts.password_rules import PasswordRules
from auth_service.accounts.passwords import PasswordHasher
from auth_service.accounts.throttle import Throttle
from auth_service.accounts.users import Users
from auth_service.keys.encryption import KeyCipher
from auth_service.keys.key_ring import KeyRing
from auth_service.keys.life_cycle import KeyLifeCycle
from auth_service.keys.rewrapping import KeyRewrapping
from auth_service.keys.schedule import Terms
from auth_service.keys.store import SigningKeyStore
from auth_service.revocation.announcer import Announcer
from auth_service.revocation.key_revocation import KeyRevocation
from auth_service.revocation.live_set import LiveSet
from auth_service.revocation.stream import StreamWriter
from auth_service.sessions.checkpoint import CheckpointWriter
from auth_service.sessions.ending import SessionEnding
from auth_service.sessions.issuing import TokenIssuer
from auth_service.sessions.rotation import RotationStore
from auth_service.sessions.store import SessionStore
from auth_service.settings import Settings
from auth_service.stores.clock import Clock
from auth_service.stores.database import Database
from auth_service.stores.redis import open_redis


class Parts:
    """The collaborators below the endpoints, joined. The command line uses them without any HTTP."""

    def __init__(self, settings: Settings, clock: Clock) -> None:
        self.settings = settings
        self.database = Database(settings.database_url.get_secret_value(), clock)
        self.redis = open_redis(settings.redis_url.get_secret_value())
        self.key_cipher = KeyCipher([key.get_secret_value() for key in settings.key_encryption_keys])
        self.key_store = SigningKeyStore(self.database, self.key_cipher)
        # No refresh token outlives its session.
        refresh_token_life = min(settings.refresh_token_ttl, settings.session_ttl)
        self.key_life_cycle = KeyLifeCycle(
            self.database,
            self.key_store,
            terms=Terms(settings.key_rotation_interval, refresh_token_life),
            key_size=settings.rsa_key_size,
        )
        self.key_rewrapping = KeyRewrapping(self.database, self.key_cipher)
        self.keys = KeyRing()
        self.rotations = RotationStore(
            self.redis, window=settings.refresh_replay_window, idle_life=settings.refresh_token_ttl
        )
        self.sessions = SessionStore(self.database, settings)
        self.live_set = LiveSet()
        self.announcer = Announcer(self.live_set, StreamWriter(self.redis))
        self.ending = SessionEnding(self.database, self.rotations, self.announcer)
        self.key_revocation = KeyRevocation(self.key_life_cycle, self.announcer)
        self.checkpoints = CheckpointWriter(self.database)
        self.tokens = TokenIssuer(settings, self.keys)
        self.passwords = PasswordHasher()
        self.password_rules = PasswordRules(
            min_length=settings.password_min_length,
            host=urlsplit(settings.issuer).hostname or "",
            client_id=settings.first_party_client_id,
        )
        addresses = AddressBuckets(settings.unthrottled_networks)
        self.throttle = Throttle(self.redis, addresses)
        self.name_questions = NameQuestions(self.redis, addresses)
        self.users = Users(self.database, self.sessions, self.ending, self.passwords, self.throttle)
        self.clients = Clients(self.database, self.announcer)
        self.live_tokens = LiveTokens(
            issuer=settings.issuer,
            database=self.database,
            keys=self.keys,
            sessions=self.sessions,
            clients=self.clients,
        )

    async def open(self) -> None:
        await self.database.open()

    async def close(self) -> None:
        self.passwords.close()
        self.password_rules.close()
        await self.redis.aclose()
        await self.database.close()
