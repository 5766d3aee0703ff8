import { parseProxyServer, type ProxyServer } from '../net/proxy-rules.ts';
import type { About, Row } from './kinds.ts';

/** The URL of a proxy. The user and the password in it are kept out of the log. It may be unset. */
export function proxyServer(name: string, { about }: About): Row<ProxyServer | undefined> {
  return {
    variables: [{ name, fallback: undefined, about, hasFileForm: false, hasLowerCaseForm: true }],
    read: (environment) => {
      const url = environment.textOfEitherCase(name);
      if (url === undefined) return undefined;
      environment.secrets.push(...userInfoOf(url));
      try {
        return Object.freeze(parseProxyServer(url));
      } catch (error) {
        environment.report(`${name} ${error instanceof Error ? error.message : String(error)}`);
        return undefined;
      }
    },
  };
}

/** All forms in which the password of a URL can stand in a text. */
function userInfoOf(url: string): string[] {
  const [, userInfo] = /^(?:[a-z][a-z0-9+.-]*:\/\/)?(.*)@/i.exec(url) ?? [];
  if (userInfo === undefined) return [];
  const password = userInfo.replace(/^[^:]*:?/, '');
  const [plainInfo, plainPassword] = [userInfo, password].map((text) => unescaped(text));
  const encoded = [userInfo, plainInfo ?? ''].map((text) => Buffer.from(text).toString('base64'));
  return [userInfo, plainInfo ?? '', password, plainPassword ?? '', ...encoded].filter((text) => text !== '');
}

function unescaped(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

/** Hosts that are reached without a proxy, separated by commas or white space. Unset, it is an empty list. */
export function proxyExceptions(name: string, { about }: About): Row<readonly string[]> {
  return {
    variables: [{ name, fallback: undefined, about, hasFileForm: false, hasLowerCaseForm: true }],
    read: (environment) => {
      const list = (environment.textOfEitherCase(name) ?? '').split(/[\s,]+/);
      return Object.freeze(list.filter((entry) => entry !== ''));
    },
  };
}
