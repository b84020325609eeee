// jose as a resource server uses it: our keys by their address, our tokens by RFC 9068.
import { createRemoteJWKSet, jwtVerify } from 'jose'

const { ISSUER, ACCESS_TOKEN, AUDIENCE } = process.env
const metadata = await (await fetch(`${ISSUER}/.well-known/oauth-authorization-server`)).json()
const keys = createRemoteJWKSet(new URL(metadata.jwks_uri))
const expected = {
  issuer: metadata.issuer,
  audience: AUDIENCE,
  typ: 'at+jwt',
  algorithms: ['RS256'],
  requiredClaims: ['exp', 'iat', 'sub', 'jti', 'client_id'],
}
const code = (promise) => promise.then(() => 'accepted', (error) => error.code)

const { payload } = await jwtVerify(ACCESS_TOKEN, keys, expected)
const [header, body, signature] = ACCESS_TOKEN.split('.')
const tampered = [header, body, signature.slice(0, -4) + (signature.endsWith('AAAA') ? 'BBBB' : 'AAAA')].join('.')
console.log(
  JSON.stringify({
    sub: payload.sub,
    tampered: await code(jwtVerify(tampered, keys, expected)),
    elsewhere: await code(jwtVerify(ACCESS_TOKEN, keys, { ...expected, audience: 'elsewhere' })),
    another_type: await code(jwtVerify(ACCESS_TOKEN, keys, { ...expected, typ: 'rt+jwt' })),
  }),
)
