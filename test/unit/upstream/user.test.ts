import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { ROLES, userFromClaims } from '../../../src/upstream/user.ts';

const XMLSOAP = 'http://schemas.xmlsoap.org/ws/2005/05/identity/claims';
const MICROSOFT = 'http://schemas.microsoft.com/ws/2008/06/identity/claims';

describe('the user of a token', () => {
  it('is read from the short claim names', () => {
    const claims = { nameid: '7', unique_name: 'a@b.c', role: 'Admin', exp: 1_800_000_000 };
    assert.deepEqual(userFromClaims(claims), {
      id: '7',
      email: 'a@b.c',
      roleName: 'Admin',
      role: 'Admin',
      expiresAt: 1_800_000_000,
    });
  });

  it('is read from the long names that .NET issues', () => {
    const claims = {
      [`${XMLSOAP}/nameidentifier`]: '7',
      [`${XMLSOAP}/name`]: 'a@b.c',
      [`${MICROSOFT}/role`]: 'Operator',
    };
    const user = userFromClaims(claims);
    assert.deepEqual([user.id, user.email, user.role], ['7', 'a@b.c', 'Operator']);
    assert.equal(userFromClaims({ [`${XMLSOAP}/emailaddress`]: 'x@y.z' }).email, 'x@y.z');
  });

  it('may have an email under its own name', () => {
    assert.equal(userFromClaims({ email: 'a@b.c' }).email, 'a@b.c');
    assert.equal(userFromClaims({ unique_name: '', email: 'a@b.c' }).email, 'a@b.c');
  });

  for (const role of ROLES) {
    it(`may have the role ${role}`, () => {
      assert.equal(userFromClaims({ role }).role, role);
    });
  }

  for (const roleName of ['Root', 'admin', 'Admin ', 'constructor', '__proto__']) {
    it(`with the unknown role "${roleName}" keeps its name and is granted nothing`, () => {
      const user = userFromClaims({ role: roleName });
      assert.equal(user.roleName, roleName);
      assert.equal(user.role, 'None');
    });
  }

  for (const role of [undefined, null, 4, '', {}, ['Admin']]) {
    it(`with the role ${JSON.stringify(role)} is granted nothing`, () => {
      assert.equal(userFromClaims({ role }).role, 'None');
    });
  }

  it('without claims is nobody', () => {
    assert.deepEqual(userFromClaims({ exp: 'tomorrow' }), {
      id: undefined,
      email: undefined,
      roleName: 'None',
      role: 'None',
      expiresAt: undefined,
    });
  });

  it('cannot be changed', () => {
    assert.ok(Object.isFrozen(userFromClaims({})));
  });
});
